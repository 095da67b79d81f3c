"""Evaluators: `run(state)` yields (name, value) over a whole split at once."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline.loader import eval_batches
from input_pipeline.prepared import Prepared
from rann_jax import distributed, metrics
from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment
from rann_jax.predictions import Predictions
from rann_jax.state import TrainState
from rann_jax.steps import make_eval_step


class SplitEvaluator:
    """Scores the averaged weights on one split; clips longer than t_c count as the mean of their crops.

    That mean over evenly spaced crops is ours: neither the deck nor the paper says how longer clips are
    scored. Metrics are of the whole split, never means over batches.

    Args:
      experiment: front end, network and config.
      prepared: the data.
      name: what the split is called in the config, in metric names and file names.
      mesh: the devices.

    Raises:
      DataError: the config names a split that the data does not have.
    """

    def __init__(self, experiment: Experiment, prepared: Prepared, name: str, mesh: Mesh):
        self.name = name
        self._config = experiment.config
        self._crop_samples = experiment.crop_samples
        self._prepared = prepared
        self._split = experiment.config.splits[name]
        self._mesh = mesh
        self._targets = prepared.targets(self._split)
        self._step = jax.jit(
            make_eval_step(experiment.model, experiment.front_end, task=self._config.task),
            out_shardings=distributed.split_batch(mesh),
        )
        self._probabilities: np.ndarray | None = None
        self._trained_steps = 0

    def run(self, state: TrainState) -> Iterator[tuple[str, float]]:
        """Predict the split with the averaged weights, then yield its metrics.

        For classification: accuracy, mAP, macro F1; for tagging: mAP, mAUC, d'. Classes without
        positives are left out of the means; `undefined_classes` counts them.
        """
        self._probabilities = self._predict(state)
        self._trained_steps = int(jax.device_get(state.step))
        targets, scores = self._targets, self._probabilities
        yield f"{self.name}/mAP", metrics.mean(metrics.average_precision(targets, scores))
        if self._config.task == "classification":
            yield f"{self.name}/accuracy", metrics.accuracy(targets, scores)
            yield f"{self.name}/macro_f1", metrics.macro_f1(targets, scores)
        else:
            auc = metrics.mean(metrics.roc_auc(targets, scores))
            yield f"{self.name}/mAUC", auc
            yield f"{self.name}/d_prime", float(metrics.d_prime(auc))
        yield f"{self.name}/clips", len(targets)
        yield f"{self.name}/undefined_classes", len(metrics.undefined_classes(targets))

    def save(self, workdir: Path) -> Path:
        """Write the predictions of the last `run`."""
        assert self._probabilities is not None, "save() follows run()"
        return Predictions(
            ids=np.array([row.id for row in self._prepared.manifest(self._split).rows]),
            targets=self._targets,
            probabilities=self._probabilities,
            labels=np.array(self._prepared.labels),
            fingerprint=self._prepared.fingerprint(self._split),
            task=self._config.task,
            step=self._trained_steps,
        ).save(workdir, self.name)

    def _predict(self, state: TrainState) -> np.ndarray:
        """Mean class probabilities (clips, C) over the crops of each clip, float64."""
        total = np.zeros(self._targets.shape, np.float64)
        crops = np.zeros(len(total))
        batches = eval_batches(
            self._prepared,
            self._split,
            crop_samples=self._crop_samples,
            max_crops=self._config.eval.max_crops,
            batch_size=self._config.eval.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for batch in batches:
            placed = distributed.place_batch(batch, self._mesh)
            rows = {**placed, "probabilities": self._step(state.ema_variables, placed["audio"])}
            del rows["audio"]
            host = distributed.to_host(rows)
            mask = host["mask"]
            np.add.at(total, host["clip"][mask], host["probabilities"][mask].astype(np.float64))
            np.add.at(crops, host["clip"][mask], 1)
        batches.close()
        return total / crops[:, None]


def evaluate(evaluators: Sequence[SplitEvaluator], state: TrainState) -> dict[str, float]:
    """All that the evaluators yield, by name."""
    return {name: value for evaluator in evaluators for name, value in evaluator.run(state)}


def evaluate_checkpoint(
    experiment: Experiment, prepared: Prepared, workdir: Path, which: str
) -> dict[str, float]:
    """Score a checkpoint of a workdir on the config's evaluation splits and write the predictions.

    Args:
      experiment: the run's.
      prepared: the data.
      workdir: the run's folder.
      which: "latest" or "best".

    Raises:
      ConfigError: there is no checkpoint, or the devices cannot share a batch.
      DataError: the config names a split that the data does not have.
    """
    config = experiment.config
    mesh = distributed.data_mesh()
    distributed.check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    evaluators = [SplitEvaluator(experiment, prepared, name, mesh) for name in config.eval.splits]
    with closing(Checkpoints(workdir, config.best_metric)) as checkpoints:
        step = checkpoints.best_step if which == "best" else checkpoints.latest_step
        if step is None:
            raise ConfigError(f"{workdir} holds no {which} checkpoint: train with --mode=train first")
        like = experiment.abstract_state(distributed.replicated(mesh))
        state, _ = checkpoints.restore(like, step)
    scores = evaluate(evaluators, state)
    for evaluator in evaluators:
        evaluator.save(workdir)
    return scores

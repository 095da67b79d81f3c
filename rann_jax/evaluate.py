"""Evaluation: score the moving average of the weights on whole splits, and write the predictions."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from input_pipeline import survey
from input_pipeline.loader import Batch, eval_batches
from input_pipeline.prepared import Prepared
from rann_jax import distributed, metrics
from rann_jax.checkpoint import Checkpoints
from rann_jax.devices.compiler import suited, xla_options
from rann_jax.devices.dispatch import one_behind
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.experiment import Experiment
from rann_jax.saved import predictions
from rann_jax.saved.predictions import Predictions
from rann_jax.saved.record import Record
from rann_jax.saved.workdir import PREDICTIONS, replace_atomically
from rann_jax.state import TrainState
from rann_jax.steps import make_eval_step
from rann_jax.tasks import MEASURES


class StoppedError(Exception):
    """Raised in an evaluation that was told to stop between two batches."""


def check_splits(config: ConfigDict) -> None:
    """Raise ConfigError unless config.eval.splits names splits of the config, and those are text."""
    for use, names in config.splits.items():
        if not isinstance(names, str):
            raise ConfigError(
                f"config.splits.{use}={names!r} must be text: join several with +, as in 'fold2+fold3'"
            )
    chosen, known = config.eval.splits, tuple(config.splits)
    if isinstance(chosen, str):
        raise ConfigError(f"config.eval.splits={chosen!r} must be a tuple of names, such as ({chosen!r},)")
    if not isinstance(chosen, tuple | list) or not chosen or any(name not in known for name in chosen):
        raise ConfigError(
            f"config.eval.splits={chosen!r} must name one or more of config.splits: {', '.join(known)}"
        )


def check_best_metric(config: ConfigDict) -> None:
    """Raise ConfigError unless config.best_metric is a score that the evaluation yields."""
    there = [f"{split}/{measure}" for split in config.eval.splits for measure in MEASURES[config.task]]
    if config.best_metric not in there:
        raise ConfigError(
            f"config.best_metric={config.best_metric!r} is not a score of config.eval.splits: use one of "
            f"{', '.join(there)}"
        )


def check_task(config: ConfigDict, prepared: Prepared, splits: Iterable[str]) -> None:
    """Raise ConfigError unless the clips of these splits have as many labels as config.task is for."""
    if config.task != "classification":
        return
    for split in splits:
        for row in prepared.manifest(split).rows:
            if (count := len(set(row.labels))) != 1:
                raise ConfigError(
                    f"config.task=classification is for one label per clip, but clip {row.id!r} of split "
                    f"{split!r} has {count}: set --config.task=tagging, or give each clip one label"
                )


def measures(task: str, targets: np.ndarray, scores: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yield the MEASURES of a task for targets and scores (N, C)."""
    yield "mAP", metrics.mean(metrics.average_precision(targets, scores))
    if task == "classification":
        yield "accuracy", metrics.accuracy(targets, scores)
        yield "macro_f1", metrics.macro_f1(targets, scores)
    else:
        auc = metrics.mean(metrics.roc_auc(targets, scores))
        yield "mAUC", auc
        yield "d_prime", float(metrics.d_prime(auc))


class SplitEvaluator:
    """Scores the moving average of the weights on one split; a clip beyond t_c gets the mean over its crops.

    The mean over evenly spaced crops is (ours): neither the deck nor the paper says how longer clips are
    scored. Metrics are computed over the whole split, never averaged over batches.

    Args:
      experiment: front end, network and config.
      prepared: the data.
      name: the split's name in the config, in metric names and in file names.
      mesh: the devices.

    Attributes:
      name: as given.
      fingerprint: fingerprint of the split's clips and labels.

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
        self.fingerprint = prepared.fingerprint(self._split)
        self._scores: dict[str, float] = {}
        device = mesh.devices.flat[0]
        self._step = jax.jit(
            make_eval_step(suited(experiment.model, device), experiment.front_end, task=self._config.task),
            out_shardings=distributed.split_batch(mesh),
            compiler_options=xla_options(device),
        )
        self._compiled = False
        self._probabilities: np.ndarray | None = None
        self._trained_steps = 0

    def run(self, state: TrainState, told: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, float]]:
        """Predict the split with the moving average of the weights, then yield its metrics.

        The metrics are mAP, accuracy and macro F1 for classification; mAP, mAUC and d' for tagging. Classes
        without positives are left out of the means; `undefined_classes` counts them. `clips` counts the
        scored clips; `clips_listed` counts the rejected ones too.

        Raises:
          DivergedError: a probability is not finite.
          StoppedError: `told`, asked after each batch, said to stop.
        """
        self._probabilities = self._predict(state, told)
        self._trained_steps = int(jax.device_get(state.step))
        if broken := np.count_nonzero(~np.isfinite(self._probabilities).all(axis=1)):
            raise DivergedError(
                f"{self.name}: {broken} clips have probabilities that are not finite with the weights of "
                f"step {self._trained_steps}: lower config.optimizer.learning_rate and train in another "
                "--workdir"
            )
        self._scores = {
            f"{self.name}/{measure}": value for measure, value in self._measures(self._probabilities)
        }
        yield from self._scores.items()

    def _measures(self, scores: np.ndarray) -> Iterator[tuple[str, float]]:
        targets = self._targets
        yield from measures(self._config.task, targets, scores)
        yield "clips", len(targets)
        yield "clips_listed", self._prepared.manifest(self._split).listed
        yield "undefined_classes", len(metrics.undefined_classes(targets))

    def save(self, workdir: Path, which: str = "latest") -> Path:
        """Write the predictions of the last `run` and, beside them, its metrics; return the former's path.

        predictions/SPLIT.json holds `scores` (an undefined one is null), `step` and the data's `fingerprint`.
        Files of the "best" checkpoint are named SPLIT.best, so that they do not replace the latest's.
        """
        assert self._probabilities is not None, "save() follows run()"
        file_name = predictions.best(self.name) if which == "best" else self.name
        summary = {
            "scores": {name: value if math.isfinite(value) else None for name, value in self._scores.items()},
            "step": self._trained_steps,
            "fingerprint": self.fingerprint,
        }
        with replace_atomically(workdir / PREDICTIONS / f"{file_name}.json") as file:
            file.write(json.dumps(summary, indent=2) + "\n")
        return Predictions(
            ids=np.array([row.id for row in self._prepared.manifest(self._split).rows]),
            targets=self._targets,
            probabilities=self._probabilities,
            labels=np.array(self._prepared.labels),
            fingerprint=self.fingerprint,
            task=self._config.task,
            step=self._trained_steps,
            max_crops=self._config.eval.max_crops,
        ).save(workdir, file_name)

    def _predict(self, state: TrainState, told: Callable[[], bool]) -> np.ndarray:
        """Return the mean class probabilities (clips, C) over the crops of each clip, float64."""
        total = np.zeros(self._targets.shape, np.float64)
        crops = np.zeros(len(total))
        variables = jax.device_put(state.ema_variables, distributed.replicated(self._mesh))
        batches = eval_batches(
            self._prepared,
            self._split,
            crop_samples=self._crop_samples,
            max_crops=self._config.eval.max_crops,
            batch_size=self._config.eval.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            **distributed.reading(self._config.loader),
        )
        with closing(batches):
            for rows in one_behind(self._scored(variables, batch) for batch in batches):
                host = jax.device_get(rows)
                mask = host["mask"]
                np.add.at(total, host["clip"][mask], host["probabilities"][mask].astype(np.float64))
                np.add.at(crops, host["clip"][mask], 1)
                if told():
                    raise StoppedError
        return total / crops[:, None]

    def _scored(self, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        """Return the rows of a batch of all processes with their probabilities (B, C), without waiting."""
        rows = distributed.place_batch(batch, self._mesh)
        rows["probabilities"] = self._step(variables, rows.pop("audio"))
        if not self._compiled:
            distributed.wait_for_all(f"the evaluation of {self.name} is compiled")
            self._compiled = True
        return distributed.gathered(rows, self._mesh)


def evaluate(
    evaluators: Sequence[SplitEvaluator], state: TrainState, told: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Run all evaluators and return their metrics by name.

    Raises:
      StoppedError: `told` said to stop before the end.
    """
    return {name: value for evaluator in evaluators for name, value in evaluator.run(state, told)}


def save(evaluators: Sequence[SplitEvaluator], workdir: Path) -> None:
    """Write the evaluators' predictions; only the primary process writes."""
    if distributed.is_primary():
        for evaluator in evaluators:
            evaluator.save(workdir)


def readable(scores: Mapping[str, float]) -> Iterator[str]:
    """Yield one line per metric; clips read 'test: 1998 of 2000 clips', which shows how many were left out.

    >>> list(readable({"test/mAP": 0.5, "test/clips": 1998, "test/clips_listed": 2000}))
    ['test/mAP: 0.5000', 'test: 1998 of 2000 clips']
    """
    for name, value in scores.items():
        split, _, measure = name.rpartition("/")
        if measure == "clips":
            yield f"{split}: {value} of {scores[name + '_listed']} clips"
        elif measure != "clips_listed":
            yield f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}"


def evaluate_checkpoint(
    experiment: Experiment, prepared: Prepared, workdir: Path, which: str
) -> dict[str, float]:
    """Score a checkpoint of a workdir on the config's evaluation splits and write the predictions.

    Predictions of the best checkpoint are kept as SPLIT.best, beside the latest's, which all other programs
    read. Data other than what the run was started with is scored too, with a warning on stderr, which says so
    if clips tested now may have been trained on.

    Args:
      experiment: the run's experiment.
      prepared: the data.
      workdir: the run's workdir.
      which: "latest" or "best".

    Raises:
      ConfigError: there is no checkpoint, its labels differ, or the devices cannot share a batch evenly.
      DataError: the config names a split that the data does not have.
    """
    config = experiment.config
    mesh = distributed.data_mesh()
    distributed.check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    evaluators = [SplitEvaluator(experiment, prepared, name, mesh) for name in config.eval.splits]
    with closing(Checkpoints(workdir, config.best_metric)) as checkpoints:
        like = experiment.abstract_state(distributed.replicated(mesh))
        state, record = checkpoints.restore_chosen(like, which)
    if record.bundle["labels"] != list(prepared.labels):
        raise ConfigError(
            "config.data_dir: the labels of this data differ from the checkpoint's: name data with the same "
            "labels"
        )
    if changed := record.changed({evaluator.name: evaluator.fingerprint for evaluator in evaluators}):
        means = _dealt_anew(config, prepared, record) or "the scores are of the data given now"
        for name in changed:
            print(
                f"warning: the data of {name} is not what this run was started with (its fingerprint "
                f"differs): {means}",
                file=sys.stderr,
            )
    scores = evaluate(evaluators, state)
    if distributed.is_primary():
        for evaluator in evaluators:
            path = evaluator.save(workdir, which)
            print(
                f"predictions of {evaluator.name} by the {which} checkpoint, step {record.batches}: {path}",
                file=sys.stderr,
            )
    return scores


def _dealt_anew(config: ConfigDict, prepared: Prepared, record: Record) -> str:
    """Return a warning if the changed data was dealt into folds again, which moves clips between them."""
    train = config.splits.get("train", "")
    kept = set(train.split("+")) <= set(prepared.splits) and not record.changed(
        {"train": prepared.fingerprint(train)}
    )
    if kept or not config.data_dir:
        return ""
    found = survey(data_dir=config.data_dir, **config.dataset.to_dict())
    if not found.dealt:
        return ""
    return (
        f"{found.splits_from} dealt the clips anew, so clips tested now may have been trained on and the "
        "scores be far too good: test on the files that were there then or, in an own folder, fix the folds "
        "that they had in a csv with the columns filename, label and fold (docs/own_folder.md)"
    )

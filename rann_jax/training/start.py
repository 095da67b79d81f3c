"""The start of a run: the state and the batches to go on from, and what is said of them."""

import jax
from grain import DatasetIterator
from jax.sharding import Mesh

from input_pipeline.loader import train_batches
from input_pipeline.prepared import Prepared
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment
from rann_jax.saved import environment
from rann_jax.saved.record import Record
from rann_jax.state import TrainState
from rann_jax.training.pretrained import Beginning
from rann_jax.writers import parameter_overview


def restore_or_create(
    experiment: Experiment,
    prepared: Prepared,
    checkpoints: Checkpoints,
    mesh: Mesh,
    beginning: Beginning | None = None,
) -> tuple[TrainState, Record]:
    """Return the latest state and its record, or fresh ones of step 0 if there is no checkpoint.

    A fresh state takes the weights of `beginning`, if given. A damaged checkpoint is skipped and moved aside,
    so that a new one can be written in its place.

    Raises:
      ConfigError: the checkpoint was trained on other data, it holds converted weights that were not trained
        here, it cannot be read now though it may be whole, or all are damaged.
    """
    fingerprints = {name: prepared.fingerprint(split) for name, split in experiment.config.splits.items()}
    if checkpoints.latest_step is None:
        bundle = {
            "config": experiment.config.to_dict(),
            "labels": list(prepared.labels),
            "fingerprints": fingerprints,
        }
        state = experiment.create(beginning.loaded if beginning else None, experiment.shardings(mesh))
        return state, Record(batches=0, seconds=0.0, bundle=bundle)
    state, record = checkpoints.restore_newest(experiment.sharded_state(mesh))
    if record.converted:
        raise ConfigError(
            "--workdir holds converted weights: name that folder with --config.init_from, and give another "
            "--workdir"
        )
    if changed := record.changed(fingerprints):
        raise ConfigError(
            f"config.data_dir: the data of {', '.join(changed)} is not what this run was started with "
            "(its fingerprint differs): use the same data or another --workdir"
        )
    checkpoints.set_aside(after=record.batches)
    return state, record


def batches_from(experiment: Experiment, prepared: Prepared, start: int) -> DatasetIterator:
    """Return this process's training batches from step `start` on."""
    config = experiment.config
    return train_batches(
        prepared,
        config.splits.train,
        crop_samples=experiment.crop_samples,
        batch_size=config.batch_size,
        seed=config.seed,
        sampling=config.sampling,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **distributed.reading(config.loader),
    )


def introduction(
    experiment: Experiment, state: TrainState, start: int, beginning: Beginning | None = None
) -> str:
    """Return the text shown before the first step: every array and its origin, the network, the devices."""
    devices = f"{jax.device_count()} x {environment.device_kind()}"
    bins, frames = experiment.image_shape
    frozen = experiment.freezing.count(state.params)
    return (
        f"{beginning}\n" * (beginning is not None)
        + f"{parameter_overview(state.params)}\n"
        + f"frozen parameters: {frozen:,}\n" * (frozen > 0)
        + f"{experiment.config.model.name}, {bins} x {frames} "
        f"{experiment.front_end.name}, on {devices}" + (f", resumed at step {start}" * (start > 0))
    )

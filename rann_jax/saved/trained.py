"""Load and save a trained model: its weights, and the config and labels that are saved with them."""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment, build
from rann_jax.saved.record import Record
from rann_jax.saved.workdir import check_unused, is_workdir, save_config
from rann_jax.schema import known


class Trained(NamedTuple):
    """A trained model.

    Attributes:
      experiment: config, front end and network.
      variables: moving average of weights and statistics on one device, as `model.apply` takes them.
      labels: class names, in the order of the logits.
    """

    experiment: Experiment
    variables: dict[str, Any]
    labels: tuple[str, ...]


def load_trained(workdir: Path, checkpoint: str = "latest") -> Trained:
    """Return the model of a workdir; only its `checkpoints/` is read.

    Args:
      workdir: the run's workdir.
      checkpoint: "latest" or "best", as for `Checkpoints.restore_chosen`.

    Raises:
      ConfigError: there is no such checkpoint, or it cannot be read.
    """
    if checkpoint not in ("latest", "best"):
        raise ConfigError(f"checkpoint={checkpoint!r}: it must be latest or best")
    if workdir.is_file():
        raise ConfigError(
            f"{workdir} is a file, not the folder of a trained model: rann_jax.convert makes a workdir of a "
            "PyTorch file"
        )
    if not is_workdir(workdir):
        raise ConfigError(f"{workdir} holds no checkpoints/: name the workdir of a trained model")
    with closing(Checkpoints(workdir)) as checkpoints:
        experiment = build(known(ConfigDict(checkpoints.newest_record().bundle["config"])))
        like = experiment.abstract_state(SingleDeviceSharding(jax.local_devices()[0]))
        state, record = checkpoints.restore_chosen(like, checkpoint)
    return Trained(experiment, state.ema_variables, tuple(record.bundle["labels"]))


def save_trained(trained: Trained, workdir: Path, option: str = "workdir") -> None:
    """Write a model as a checkpoint of step 0; nothing is recorded of the data that it was trained on.

    Args:
      trained: the model.
      workdir: the folder to create, or an empty one.
      option: what gave it, for messages.

    Raises:
      ConfigError: the workdir cannot be written, or holds a run already.
    """
    check_unused(workdir, option)
    config = trained.experiment.config.copy_and_resolve_references()
    config.init_from = ""  # the workdir holds the weights, so what they came from is no longer needed
    bundle = {"config": config.to_dict(), "labels": list(trained.labels), "fingerprints": {}}
    state = trained.experiment.create(flatten_dict(trained.variables))
    with closing(Checkpoints(workdir, config.best_metric)) as checkpoints:
        checkpoints.save(0, state, Record(batches=0, seconds=0.0, bundle=bundle), {})
    save_config(workdir, config)

"""Load a trained model: its weights, and the config and labels that are saved with them."""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment, build
from rann_jax.keys import known
from rann_jax.workdir import is_workdir


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

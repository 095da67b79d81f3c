"""Initial weights of a run, `config.init_from`: from a workdir or a PyTorch file.

Every array of the network must be present with its shape. The exception is the last layer: if the classes
differ, it is initialised at random. The front end must be the source's, except for the length of crops. All
this happens only before a run's first step; a resumed run needs nothing but its own checkpoint.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from flax.traverse_util import flatten_dict

from rann_jax import interop, models
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.saved.trained import load_trained
from rann_jax.state import Arrays


@dataclasses.dataclass(frozen=True)
class Source:
    """The weights that a workdir or file provides.

    Attributes:
      where: the path of the workdir or file.
      arrays: weights and statistics by path, such as ("params", "fc1", "kernel").
      labels: class names in the order of the logits; None for a file, which has none.
      skipped: names of entries in a file that are not weights of the network.
    """

    where: str
    arrays: Arrays
    labels: tuple[str, ...] | None
    skipped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The weights that a run starts from.

    Attributes:
      source: where they come from.
      loaded: the arrays that are taken, by path.
      skipped: names of those that are not taken.
      new: names of those that are initialised at random.
    """

    source: Source
    loaded: Arrays
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        """One line per array, saying what happened to it."""
        loaded = ["/".join(path) for path in self.loaded]
        parts = {"loaded": loaded, "skipped": self.skipped, "new": self.new}
        counts = ", ".join(f"{len(names)} {what}" for what, names in parts.items())
        lines = [f"{what:<7}  {name}" for what, names in parts.items() for name in names]
        return "\n".join([f"arrays of {self.source.where}: {counts}", *lines])


def load(experiment: Experiment) -> Source | None:
    """Return the weights that config.init_from names, or None if it is ''.

    Raises:
      ConfigError: there is no such folder or file, or its network, front end or sample rate differs; or it is
        '' but layers are frozen, which would then keep their random initial weights.
    """
    init_from = experiment.config.get("init_from", "")
    if not init_from:
        if experiment.freezing.patterns:
            raise ConfigError(
                "config.optimizer.frozen: random weights would be frozen: name trained ones with "
                "--config.init_from=PATH, a workdir or a PyTorch file"
            )
        return None
    path = Path(init_from).expanduser()
    if not path.exists():
        raise ConfigError(f"config.init_from: {path} does not exist: name a workdir or a PyTorch file")
    try:
        source = _of_workdir(path, experiment) if path.is_dir() else _of_file(path, experiment)
        _check_arrays(source, experiment)
    except ConfigError as error:
        raise ConfigError(f"config.init_from: {error}") from error
    return source


def begin(source: Source, experiment: Experiment, labels: Sequence[str]) -> Beginning:
    """Return what to take from a source for these classes: everything, or everything but the last layer.

    The last layer is taken if the classes are the same, in the same order. A file does not name its classes;
    from a file it is taken if the number of classes is the same.
    """
    name = experiment.config.model.name
    head = models.head(name)
    keep = classes_of(source, name) == len(labels) and source.labels in (None, tuple(labels))
    loaded = {path: array for path, array in source.arrays.items() if keep or path[1] != head}
    replaced = tuple("/".join(path) for path in source.arrays if path not in loaded)
    new = tuple("/".join(path) for path in experiment.arrays if path not in loaded)
    return Beginning(source, loaded, (*replaced, *source.skipped), new)


def classes_of(source: Source, network: str) -> int:
    """Return the number of classes of a source that `load` has checked."""
    return len(source.arrays["params", models.head(network), "bias"])


def _of_workdir(path: Path, experiment: Experiment) -> Source:
    """Return the moving average of the weights of a workdir's latest checkpoint."""
    trained, variables, labels = load_trained(path)
    _check_same_front_end(str(path), trained.front_end, experiment.front_end)
    return Source(str(path), flatten_dict(jax.device_get(variables)), labels)


def _of_file(path: Path, experiment: Experiment) -> Source:
    options = experiment.config.model.to_dict()
    entries = interop.read_entries(path)
    interop.check_front_end(entries, experiment.front_end, where=str(path))
    loaded = interop.from_state_dict(entries, options.pop("name"), where=str(path), **options)
    return Source(str(path), flatten_dict(jax.device_get(loaded.variables)), None, loaded.skipped)


def _check_same_front_end(where: str, theirs: FrontEnd, ours: FrontEnd) -> None:
    """Raise ConfigError if the two differ in anything but the length of a crop."""
    if theirs.name != ours.name:
        raise ConfigError(
            f"{where}: was trained on {theirs.name}, but config.feature.name={ours.name}: make them equal"
        )
    for field in dataclasses.fields(ours):
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        if field.name != "seconds" and there != here:
            key = "sample_rate" if field.name == "sample_rate" else f"feature.{field.name}"
            raise ConfigError(
                f"{where}: was trained with {field.name}={there}, but config.{key}={here}: make them equal"
            )


def _check_arrays(source: Source, experiment: Experiment) -> None:
    """Raise ConfigError unless the arrays match the network's; the last layer may have other shapes."""
    if told := experiment.difference(source.arrays, but=models.head(experiment.config.model.name)):
        raise ConfigError(f"{source.where}: has another network: {told}: set config.model to match it")

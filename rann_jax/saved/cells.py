"""The cells of a cross-validation: which there are, and which are finished."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from rann_jax.errors import ConfigError
from rann_jax.saved import predictions
from rann_jax.saved.predictions import Predictions
from rann_jax.saved.record import data_fingerprints
from rann_jax.saved.workdir import CONFIG_FILE, check_same_config

SPLIT = "test"  # what a cell is scored on
MAX_FOLDS = 1000  # (ours) more must be a typing error


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the cross-validation: a feature, tested on a fold."""

    feature: str
    fold: int
    config_arg: str
    workdir: Path

    @property
    def name(self) -> str:
        """The name of the cell, such as 'mfcc/fold2'."""
        return f"{self.feature}/fold{self.fold}"

    @property
    def begun(self) -> bool:
        """Whether its training was started."""
        return (self.workdir / CONFIG_FILE).exists()


def grid(config: str, features: Sequence[str], folds: Sequence[int], workdir: Path) -> list[Cell]:
    """Return every feature on every fold, in the order in which they run."""
    file, _, presets = config.partition(":")
    prefix = f"{file}:{presets}," if presets else f"{file}:"
    return [
        Cell(f, k, f"{prefix}feature={f},fold={k}", workdir / f / f"fold{k}") for f in features for k in folds
    ]


def parse_folds(text: str) -> list[int]:
    """Return the folds that `text` lists, as in '1-5' or '1,3,4'.

    Raises:
      ConfigError: the text is malformed, a fold is named twice, or there are too many.
    """
    try:
        ends = [
            (int(first), int(last or first))
            for first, _, last in (part.partition("-") for part in text.split(","))
        ]
    except ValueError as error:
        raise ConfigError(f"--folds {text}: write the folds as in 1-5 or 1,3") from error
    if any(last < first for first, last in ends):
        raise ConfigError(f"--folds {text}: write a range from its lower to its higher end")
    if sum(last - first + 1 for first, last in ends) > MAX_FOLDS:  # before building a list of them
        raise ConfigError(f"--folds {text}: name at most {MAX_FOLDS} folds")
    folds = [fold for first, last in ends for fold in range(first, last + 1)]
    if not folds or len(set(folds)) < len(folds):
        raise ConfigError(f"--folds {text}: name at least one fold, and each once")
    return folds


def finished(cell: Cell, config: ConfigDict) -> Predictions | None:
    """Return the predictions of a cell, or None unless they are those of the fully trained weights.

    Raises:
      ConfigError: the cell was run with another config, or its predictions are not of the run's data or not
        scored as its config says.
    """
    check_same_config(cell.workdir, config)
    if not cell.begun or not predictions.path_of(cell.workdir, SPLIT).exists():
        return None
    part = predictions.load(cell.workdir, SPLIT)
    if part.step != config.total_steps:
        return None
    _check_scored(cell, config, part)
    return part


def _check_scored(cell: Cell, config: ConfigDict, part: Predictions) -> None:
    """Raise ConfigError if a cell was scored again on other data or with other settings.

    What is not known passes: the data of a run that was kept without its checkpoints, and the settings of
    predictions of earlier versions.
    """
    crops = config.eval.max_crops
    if part.fingerprint != data_fingerprints(cell.workdir).get(SPLIT, part.fingerprint):
        wrong = "is of other data than the run (its fingerprint differs)"
    elif part.max_crops not in (None, crops):
        wrong = f"was scored with eval.max_crops={part.max_crops}, not {crops}"
    else:
        return
    raise ConfigError(
        f"{predictions.path_of(cell.workdir, SPLIT)} {wrong}: score the cell again: "
        f"python -m rann_jax.main --mode=eval --workdir {cell.workdir}"
    )

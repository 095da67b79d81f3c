"""Folds for data sets without an official split."""

import hashlib
from collections.abc import Hashable, Sequence

from input_pipeline.datasets.clip import Clip
from input_pipeline.errors import DataError


def dealt(named: Sequence[tuple[str, Hashable]], folds: int) -> list[str]:
    """Return the fold of each (name, class): names go in turn to fold1, fold2, ..., one class after another.

    Each class continues where the one before ended. So small classes do not all land in fold1, and neither
    the sizes of the folds nor the number of a class's clips in them differ by more than one. Classes are
    sorted by their text and names by a hash, so the result depends on nothing else.

    Raises:
      DataError: fewer than two folds.

    >>> dealt([("a", 0), ("b", 0), ("c", 0), ("d", 1)], folds=2)
    ['fold1', 'fold2', 'fold1', 'fold2']
    """
    if folds < 2:
        raise DataError(f"config.dataset.folds={folds!r} must be a whole number of at least 2")
    split = [""] * len(named)
    for turn, index in enumerate(sorted(range(len(named)), key=lambda index: _place(*named[index]))):
        split[index] = f"fold{turn % folds + 1}"
    return split


def _place(name: str, label: Hashable) -> tuple[str, bytes]:
    return str(label), hashlib.sha256(name.encode()).digest()


def deal_out(clips: Sequence[Clip], folds: int) -> dict[str, list[Clip]]:
    """Return the clips by fold, with about equally many clips of a class in each; see `dealt`."""
    splits: dict[str, list[Clip]] = {f"fold{fold + 1}": [] for fold in range(folds)}
    for clip, split in zip(clips, dealt([(clip.id, clip.labels) for clip in clips], folds), strict=True):
        splits[split].append(clip)
    return splits

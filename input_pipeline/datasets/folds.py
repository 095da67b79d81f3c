"""Folds for data sets that have no official split."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

from input_pipeline.datasets.clip import Clip
from input_pipeline.errors import DataError


def dealt(named: Sequence[tuple[str, Hashable]], folds: int) -> list[str]:
    """The fold of each (name, class): each class's names go in turn to fold1, fold2, ...

    The order in which they go is that of a hash of their names, so it depends on nothing else.

    Raises:
      DataError: fewer than two folds.

    >>> dealt([("a", 0), ("b", 0), ("c", 1)], folds=2)
    ['fold2', 'fold1', 'fold1']
    """
    if folds < 2:
        raise DataError(f"config.dataset.folds={folds!r} must be a whole number of at least 2")
    by_class: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, (_, label) in enumerate(named):
        by_class[label].append(index)
    split = [""] * len(named)
    for members in by_class.values():
        members.sort(key=lambda index: hashlib.sha256(named[index][0].encode()).digest())
        for turn, index in enumerate(members):
            split[index] = f"fold{turn % folds + 1}"
    return split


def deal_out(clips: Sequence[Clip], folds: int) -> dict[str, list[Clip]]:
    """Clips in folds of about equally many clips a class; see `dealt`."""
    splits: dict[str, list[Clip]] = {f"fold{fold + 1}": [] for fold in range(folds)}
    for clip, split in zip(clips, dealt([(clip.id, clip.labels) for clip in clips], folds), strict=True):
        splits[split].append(clip)
    return splits

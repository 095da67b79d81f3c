"""Folds for data sets without an official split."""

import hashlib
from collections.abc import Collection, Hashable, Sequence

from input_pipeline.clip import Clip
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
    _check(folds)
    split = [""] * len(named)
    places = [(str(label), _hash(name)) for name, label in named]
    for turn, index in enumerate(sorted(range(len(named)), key=places.__getitem__)):
        split[index] = f"fold{turn % folds + 1}"
    return split


def stratified(named: Sequence[tuple[str, Collection[str]]], folds: int) -> list[str]:
    """Return the fold of each (name, labels), so that each label is in the folds about equally often.

    `dealt` cannot do this for clips with several labels: it would spread each combination of labels, and
    nearly every clip may have its own. This is iterative stratification (K. Sechidis, G. Tsoumakas, I.
    Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011, figure 1): of the labels, the one
    with the fewest clips left comes first, and each of its clips goes to the fold furthest below its target
    for that label; ties go to the fold missing most clips. The paper breaks further ties at random; here the
    first label in alphabetical order and the first fold win, and names are taken in the order of a hash, so
    the result depends on nothing but names and labels. Clips without labels come last.

    Raises:
      DataError: fewer than two folds.

    >>> stratified([("a", ["cat"]), ("b", ["cat", "dog"]), ("c", ["dog"]), ("d", ["dog"])], folds=2)
    ['fold2', 'fold1', 'fold1', 'fold2']
    """
    _check(folds)
    waiting: dict[str, dict[int, None]] = {}  # the clips left of each label; a dict keeps their order
    for index in sorted(range(len(named)), key=lambda index: _hash(named[index][0])):
        for label in named[index][1] or [""]:
            waiting.setdefault(label, {})[index] = None
    # What each fold still wants, times the number of folds, which keeps it whole.
    clips = [len(named)] * folds
    wanted = {label: [len(having)] * folds for label, having in waiting.items()}
    split = [""] * len(named)
    while waiting:
        label = min(waiting, key=lambda label: (label == "", len(waiting[label]), label))
        for index in list(waiting[label]):
            fold = max(range(folds), key=lambda fold: (wanted[label][fold], clips[fold], -fold))
            split[index] = f"fold{fold + 1}"
            clips[fold] -= folds
            for had in named[index][1] or [""]:
                wanted[had][fold] -= folds
                del waiting[had][index]
        waiting = {label: left for label, left in waiting.items() if left}
    return split


def _check(folds: int) -> None:
    if folds < 2:
        raise DataError(f"config.dataset.folds={folds!r} must be a whole number of at least 2")


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def deal_out(clips: Sequence[Clip], folds: int) -> dict[str, list[Clip]]:
    """Return the clips by fold, with about equally many clips of a class in each; see `dealt`."""
    splits: dict[str, list[Clip]] = {f"fold{fold + 1}": [] for fold in range(folds)}
    for clip, split in zip(clips, dealt([(clip.id, clip.labels) for clip in clips], folds), strict=True):
        splits[split].append(clip)
    return splits

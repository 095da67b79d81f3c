"""Roles of splits by their names: for training, validation or test."""

import re
from collections.abc import Sequence

from input_pipeline.errors import quoted, shortened

LAST = -1  # the fold to test on, if none is chosen

# Names of each role, letters only, both for columns of tables and for folders.
_ROLES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout", "heldout"),
}
ROLES = {name: role for role, names in _ROLES.items() for name in names}


def base_name(split: str) -> str:
    """Return a split's name as in `ROLES`: in lower case, without digits, separators and the ending 'set'.

    >>> base_name("Test-set 2")
    'test'
    """
    letters = re.sub(r"[\W\d_]", "", split.lower())
    return letters.removesuffix("set")


def role(split: str) -> str:
    """Return what a split of this name is for: 'train', 'validation', 'test', or '' if the name does not say.

    >>> role("TRAINING"), role("hold_out"), role("Dev"), role("fold1")
    ('train', 'test', 'validation', '')
    """
    return ROLES.get(base_name(split), "")


def train_and_test(
    splits: Sequence[str], splits_from: str = "config.splits", fold: int = LAST
) -> dict[str, str]:
    """Return the splits to train and test on, by their names.

    Of numbered folds, the one with the number `fold` is the test split; by default the last. A validation
    split is used for testing if there is no test split, and not used otherwise.

    Raises:
      ValueError: the names do not tell, or there is no such fold. The message names `splits_from` as the
        source of the names.

    >>> train_and_test(["fold1", "fold2", "fold3"])
    {'train': 'fold1+fold2', 'test': 'fold3'}
    >>> train_and_test(["Test", "Training", "val"])
    {'train': 'Training', 'test': 'Test'}
    """
    folds = _numbered(splits)
    if not folds and fold != LAST:
        raise ValueError(
            f"preset fold={fold}: the splits {shortened(splits)} (from {splits_from}) are not folds: leave "
            "this preset out"
        )
    test = folds[-1:] if fold == LAST else [name for name in folds if _number(name) == fold]
    train = [name for name in folds if name not in test]
    if folds and not test:
        raise ValueError(f"preset fold={fold}: choose one of {', '.join(folds)}")
    if not folds:
        train, test = [split for split in splits if role(split) == "train"], _tested(splits)
    if not train or not test:
        raise ValueError(
            f"{splits_from}: the names {quoted(splits)} do not show which splits are "
            "for training and which for testing: rename them train and test, choose another column with "
            "split_column=, or leave out the preset data and set --config.data_dir, --config.splits.train, "
            "--config.splits.test and the preset num_classes"
        )
    return {"train": "+".join(train), "test": "+".join(test)}


def _numbered(splits: Sequence[str]) -> list[str]:
    """Return the splits in numeric order if they are folds, such as fold1, fold2, ...; otherwise []."""
    parts = {split: re.fullmatch(r"(\D+)(\d+)", split) for split in splits}
    stems = {match[1].lower() if match else "" for match in parts.values()}
    if any(map(role, splits)) or len(stems) != 1 or stems == {""}:
        return []
    return sorted(splits, key=_number)


def _number(fold: str) -> int:
    return int(re.sub(r"\D", "", fold))


def _tested(splits: Sequence[str]) -> list[str]:
    """Return the splits of the first test name found; 'test1' and 'test2' have the same, 'eval' another."""
    names = [name for wanted in ("test", "validation") for name, what in ROLES.items() if what == wanted]
    found = ([split for split in splits if base_name(split) == name] for name in names)
    return next(filter(None, found), [])

"""Roles of splits by their usual names: for training, validation or test."""

import re

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

"""What the names that people give splits say: trained on, chosen by, or tested on."""

import re

# Letters alone, and the role: one table for columns of tables and for folders.
_ROLES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout", "heldout"),
}
ROLES = {name: role for role, names in _ROLES.items() for name in names}


def base_name(split: str) -> str:
    """A split's name as `ROLES` has it: without case, numbers, separators and the word 'set'.

    >>> base_name("Test-set 2")
    'test'
    """
    letters = re.sub(r"[\W\d_]", "", split.lower())
    return letters.removesuffix("set")


def role(split: str) -> str:
    """What a split of this name is for: 'train', 'validation', 'test'; '' where the name does not say.

    >>> role("TRAINING"), role("hold_out"), role("Dev"), role("fold1")
    ('train', 'test', 'validation', '')
    """
    return ROLES.get(base_name(split), "")

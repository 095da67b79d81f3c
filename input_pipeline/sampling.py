"""Which splits a run reads: several joined, all folds but one."""

from collections.abc import Sequence

from input_pipeline.errors import DataError


def split_names(expression: str, known: Sequence[str]) -> tuple[str, ...]:
    """The splits that an expression such as 'fold2+fold3' joins, in its order.

    Raises:
      DataError: a split that is unknown, named twice or empty.
    """
    names = tuple(part.strip() for part in expression.split("+"))
    for name in names:
        if name not in known:
            raise DataError(f"config.splits: unknown split {name!r}: the splits are {', '.join(known)}")
        if names.count(name) > 1:
            raise DataError(f"config.splits: {expression!r} names {name!r} twice: name each split once")
    return names


def folds_except(held_out: str, known: Sequence[str]) -> str:
    """The training split of a cross-validation: all but one, as in 'fold2+fold3+fold4'."""
    split_names(held_out, known)
    return "+".join(name for name in known if name != held_out)

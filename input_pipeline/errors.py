"""The one error of this package that a user can cause and fix, and the wording of messages."""

from collections.abc import Sequence

_SHOWN = 12  # names


class DataError(ValueError):
    """Data that cannot be used as given; the message is one line that names the key or file and the fix."""


def shortened_reason(reason: Exception | str, length: int = 200) -> str:
    r"""Return the text of an error as one line, cut off at `length` characters; its type if it has no text.

    >>> shortened_reason(ValueError("cannot\n  read"))
    'cannot read'
    """
    # libsndfile's message begins with the whole stream object or path; error_string has only the reason.
    text = getattr(reason, "error_string", None) or str(reason) or type(reason).__name__
    return " ".join(text.split())[:length]


def shortened(names: Sequence[str]) -> str:
    """Return the first twelve names, and dots if there are more."""
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def quoted(names: Sequence[str]) -> str:
    """Return the first twelve names in quotes, since a name may have a comma in it.

    >>> quoted(["dog", "bark, howl"])
    "'dog', 'bark, howl'"
    """
    return shortened([repr(name) for name in names[: _SHOWN + 1]])

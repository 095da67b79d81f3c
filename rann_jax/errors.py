"""Errors that a user can cause and fix, and how any error is told in one line."""


class ConfigError(ValueError):
    """A config, workdir or option cannot be used; the message names the key and the fix in one line."""


class DivergedError(Exception):
    """A loss, a state or probabilities are not finite; the message gives the step and the fix."""


def one_line_reason(error: BaseException, length: int = 200) -> str:
    r"""Return the message of an error as one line, cut off at `length` characters; its type if it has none.

    >>> one_line_reason(ValueError("cannot\n  read")), one_line_reason(KeyError())
    ('cannot read', 'KeyError')
    """
    return " ".join(str(error).split())[:length] or type(error).__name__

"""Why a checkpoint, or a part of one, cannot be read: damage, or something that may pass.

A stale handle of a network disk, too many open files or a lack of memory say nothing about the files. Taken
for damage, they would cost the steps since the checkpoint before.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from rann_jax.errors import ConfigError, one_line_reason

# What the system says of files that are missing, or are not of the kind that was written.
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class UnreadError(ConfigError):
    """Something cannot be read now, but may be whole."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, says nothing about what is in the files."""
    if error is None:
        return False
    number = error.errno if isinstance(error, OSError) else _system_error(error)
    return (
        (number is not None and number not in DAMAGE)
        or isinstance(error, MemoryError)
        or "RESOURCE_EXHAUSTED" in str(error)  # a device's memory
        or may_pass(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
    )


def unreadable(what: str, error: Exception) -> ConfigError:
    """Return the error for a checkpoint, or a part of one, that raised another when it was read."""
    if may_pass(error):
        return UnreadError(
            f"{what} cannot be read now ({reason(error)}), but may be whole: run the same command again; if "
            "the disk has lost it, move it out of the workdir"
        )
    return ConfigError(
        f"{what} cannot be read ({reason(error)}): it is damaged, or another version of this program wrote "
        "it: copy it again, use that version, or name another workdir"
    )


def reason(error: Exception) -> str:
    """Return an exception's message in one line of at most 300 characters, or else its type."""
    number = _system_error(error)
    return os.strerror(number) if number else one_line_reason(error, 300)


@contextmanager
def system_errors(folder: str | os.PathLike) -> Iterator[None]:
    """Turn TensorStore's ValueError that tells of a system error into an OSError that names the folder."""
    try:
        yield
    except ValueError as error:
        if not (number := _system_error(error)):
            raise
        raise OSError(number, os.strerror(number), os.fspath(folder)) from error


def _system_error(error: BaseException) -> int | None:
    """Return the number in TensorStore's messages, which hold os_error_code='N'; None in any other."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return int(code[1]) if code else None

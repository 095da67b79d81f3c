"""A lock that admits one process at a time to a folder."""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path


class LockedError(Exception):
    """Another process holds the folder."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock a folder for this process; the kernel releases the lock however the process ends.

    The folder is created if it is missing. A second process prints that it waits, and waits. On a file system
    without locks, a process prints a warning and continues as if it were the only one.

    Raises:
      LockedError: `wait` is False and another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:  # "a": if .lock is a link, its target is not emptied
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise LockedError(f"another process is using {folder}") from error
            print(f"waiting for another process that is using {folder}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{folder} cannot be locked ({error.strerror}): use it from one process", file=sys.stderr)
        yield

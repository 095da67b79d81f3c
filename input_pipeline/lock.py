"""One process at a time in a folder."""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path


class LockedError(Exception):
    """Another process holds the folder."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a folder for this process; the kernel lets go of it however the process ends.

    Made where it is missing. A second process says that it waits, and waits. On a file system without locks
    a process says so and goes on, as if it were the only one.

    Raises:
      LockedError: without `wait`, where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:  # "a" empties no file to which a link of that name leads
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise LockedError(f"another process works in {folder}") from error
            print(f"waiting for another process that works in {folder}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{folder} cannot be locked ({error.strerror}): use it from one process", file=sys.stderr)
        yield

"""Error handling of every program: for Ctrl-C and errors that users can fix, one line on stderr."""

import importlib
import io
import os
import re
import sys
from collections.abc import Callable

import jax

from input_pipeline.errors import DataError
from rann_jax.distributed import COME, LATE
from rann_jax.errors import ConfigError
from rann_jax.exit_codes import INTERRUPTED

MENDABLE: tuple[type[Exception], ...] = (ConfigError, DataError, OSError)

LESS_MEMORY = (
    "use a smaller batch (for training, lower config.batch_size or raise config.accumulate; for evaluation, "
    "lower config.eval.batch_size), or train with config.model.remat=True"
)


def guarded(work: Callable[[], int], also: tuple[type[Exception], ...] = ()) -> int:
    """Do a program's work and return its exit code: 2 if the user can fix the error, 130 after Ctrl-C.

    Args:
      work: does the work and returns the exit code.
      also: further exceptions of this work that users can fix.

    >>> guarded(lambda: 0)
    0
    """
    if sys.stdout is None:  # it is closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        # On terminals with a small character set, and in the C locale, show other characters as ?.
        sys.stdout.reconfigure(errors="replace")
    try:
        return work()
    except BrokenPipeError:  # `| head` has seen enough
        drop_stdout()
        return 0
    except jax.errors.JaxRuntimeError as error:
        if lack := out_of_memory(error):
            told = f"{lack}: {LESS_MEMORY}"
        elif LATE in str(error):
            told = f"{str(error).splitlines()[0]}: {COME}"
        else:
            raise
        print(f"error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except MENDABLE + also as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def drop_stdout() -> None:
    """Discard what is printed from now on, and what is left in the buffer, which would fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: Exception) -> str:
    """Return an exception's message in one line; for an OSError, the file and the reason.

    >>> one_line(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'a.wav: No such file or directory'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def out_of_memory(error: Exception) -> str:
    """Return JAX's message of an out-of-memory error in one line; empty for any other error.

    >>> out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\\nBacktrace:"))
    'RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.'
    """
    told = str(error)
    if "RESOURCE_EXHAUSTED" not in told:
        return ""
    used = re.search(r"Used [^.]*\.\w+ of \S+ hbm[^\n]*", told)  # from the TPU compiler
    return used[0] if used else told.splitlines()[0]


def require(package: str, *, for_what: str, extra: str) -> None:
    """Raise ConfigError, with the command to install it, unless an optional package can be imported.

    This project has no release, and what pip finds under its name is not ours. So the command installs the
    checkout.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f'{for_what} needs {package}: pip install -e ".[{extra}]"') from error

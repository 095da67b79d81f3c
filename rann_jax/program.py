"""What every program here does with what its user can mend, and with Ctrl-C: one line on stderr."""

import importlib
import io
import os
import re
import sys
from collections.abc import Callable

import jax

from input_pipeline.errors import DataError
from rann_jax.errors import ConfigError
from rann_jax.preemption import INTERRUPTED

MENDABLE: tuple[type[Exception], ...] = (ConfigError, DataError, OSError)

LESS_MEMORY = (
    "use a smaller batch (in training config.batch_size, or more config.accumulate parts of it, and "
    "config.eval.batch_size), or train with config.model.remat=True"
)


def guarded(work: Callable[[], int], also: tuple[type[Exception], ...] = ()) -> int:
    """Do a program's work and return its exit code: 2 where users can mend the error, 130 after Ctrl-C.

    Args:
      work: returns the exit code.
      also: exceptions of this work that users can mend.

    >>> guarded(lambda: 0)
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Terminals of few characters show the others as ?.
        sys.stdout.reconfigure(errors="replace")
    try:
        return work()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except jax.errors.JaxRuntimeError as error:
        if not (lack := out_of_memory(error)):
            raise
        print(f"error: {lack}: {LESS_MEMORY}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except MENDABLE + also as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def one_line(error: Exception) -> str:
    """What an exception says, in one line; of the system's errors the file and the reason.

    >>> one_line(FileNotFoundError(2, "No such file or directory", "a.wav"))
    'a.wav: No such file or directory'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def out_of_memory(error: Exception) -> str:
    """What JAX says of a device that has too little memory, in one line; empty for any other error.

    >>> out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\\nBacktrace:"))
    'RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.'
    """
    told = str(error)
    if "RESOURCE_EXHAUSTED" not in told:
        return ""
    used = re.search(r"Used [^.]*\.\w+ of \S+ hbm[^\n]*", told)  # of a compiler for TPUs
    return used[0] if used else told.splitlines()[0]


def require(package: str, *, for_what: str, extra: str) -> None:
    """Raise ConfigError, which says how to install it, unless an optional package can be imported.

    As there is no release, what pip knows by this name is not ours: it is told of the checkout.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f'{for_what} needs {package}: pip install -e ".[{extra}]"') from error

"""Stopping by SIGTERM or Ctrl-C: the run saves and exits with a code of its own, to be resumed later."""

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h, "try again": launchers restart the command on this code.
EXIT_CODE = 75
# What shells report for a command that Ctrl-C ended.
INTERRUPTED = 130

HEARD = b"\nstopping as soon as possible; press Ctrl-C again to interrupt at once\n"


class PreemptedError(Exception):
    """Raised when the run was told to stop and has saved; the message says at which step."""


class Preemption:
    """A context manager that notices when SIGTERM or Ctrl-C tells any process of the run to stop.

    Several processes agree on the step at which they stop: JAX's coordination service catches SIGTERM,
    informs all of them, and picks the first step that none of them has passed. A second Ctrl-C has its usual
    effect: it interrupts at once.
    """

    def __init__(self) -> None:
        self._told = False
        self._before: dict[signal.Signals, Any] = {}
        # If several processes are joined, JAX itself handles SIGTERM.
        self._alone = not jax.distributed.is_initialized()

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            if self._alone:
                self._listen(signal.SIGTERM, self._remember)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background jobs
                self._listen(signal.SIGINT, self._interrupted)
        return self

    def _listen(self, number: signal.Signals, handler: Callable[..., None]) -> None:
        self._before[number] = signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _remember(self, *_: object) -> None:
        self._told = True

    def _interrupted(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        os.write(2, HEARD)  # sys.stderr could be in the middle of a write, and would refuse another
        if self._alone:
            self._told = True
        else:
            signal.raise_signal(signal.SIGTERM)

    @property
    def told(self) -> bool:
        """Whether a single process was told to stop, for work between two steps.

        Always false for joined processes: they agree only on steps. Orbax asks JAX about steps too, on a
        thread of its own, so that a number of another kind could make them miss the step to stop at.
        """
        return self._told

    def reached(self, step: int) -> bool:
        """Return whether to save and stop before this step; every process must ask at every step."""
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(step)

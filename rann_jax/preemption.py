"""SIGTERM or Ctrl-C: the run saves, leaves with its own exit code; the same command goes on from there."""

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h, "try again": launchers start the command again at this code.
EXIT_CODE = 75
# What shells report of a command that Ctrl-C ended.
INTERRUPTED = 130

HEARD = b"\nstopping at the next step; Ctrl-C again interrupts at once\n"


class PreemptedError(Exception):
    """The run was told to stop and has saved; the message says at which step."""


class Preemption:
    """Whether this run was told to stop, by SIGTERM or Ctrl-C to any of its processes. A context manager.

    Several processes agree on the step after which they stop: JAX's coordination service hears SIGTERM, tells
    all of them, and names the first step that none of them has passed. A second Ctrl-C is what the first was
    before: it interrupts at once.
    """

    def __init__(self) -> None:
        self._told = False
        self._before: dict[signal.Signals, Any] = {}
        # Where processes are joined, JAX has a handler of SIGTERM.
        self._alone = not jax.distributed.is_initialized()

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            if self._alone:
                self._listen(signal.SIGTERM, self._remember)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell's background jobs do
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
        os.write(2, HEARD)  # sys.stderr may be in the middle of a line, and refuses another then
        if self._alone:
            self._told = True
        else:
            signal.raise_signal(signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to save and stop before this step; every process asks at every step."""
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(step)

"""SIGTERM: the run saves, leaves with its own exit code, and the same command goes on from there."""

import signal
import threading
from types import TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

# EX_TEMPFAIL of sysexits.h, "try again": launchers start the command again at this code.
EXIT_CODE = 75


class PreemptedError(Exception):
    """The run was told to stop and has saved; the message says at which step."""


class Preemption:
    """Whether this run was told to stop, by SIGTERM to any of its processes. A context manager.

    Several processes agree on the step after which they stop: JAX's coordination service hears the signal,
    tells all of them, and names the first step that none of them has passed.
    """

    def __init__(self) -> None:
        self._told = False
        self._before: Any = None
        # Where processes are joined, JAX has a handler of its own. Only a main thread may set one.
        self._alone = not jax.distributed.is_initialized()
        self._listens = self._alone and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Preemption":
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, *_: object) -> None:
        self._told = True

    def reached(self, step: int) -> bool:
        """Whether to save and stop before this step; every process asks at every step."""
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(step)

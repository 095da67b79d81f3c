"""Stopping by SIGTERM or Ctrl-C: the run saves and exits with a code of its own, to be resumed later.

While steps are trained and saved, `Preemption` notices that the run is told to stop. Before and after, there
is nothing to save, and `exiting` ends the process at once. Of nested contexts, the innermost is in charge.

In a single process, `Preemption` hears SIGTERM by a signal handler, and `exiting` on a thread, by
`signal.set_wakeup_fd`. While one context hands over to another, the new one begins to hear before the old one
stops, and a thread that hears tells whichever context is in charge by then. So at no moment is a signal lost.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from rann_jax.exit_codes import RESUMABLE

HEARD = b"\nstopping as soon as possible; press Ctrl-C again to interrupt at once\n"
STOPPED = b"\nstopped; nothing is lost: run the same command again to go on\n"

# The key under which JAX tells all processes that one of them got SIGTERM. It is JAX's own: if another
# version has another, `exiting` does not hear of the signal, and the processes stop at their first step.
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"
_POLL_SECONDS = 1.0
_LEAVE_SECONDS = 5.0  # (ours) for all processes to hear of the notice


class PreemptedError(Exception):
    """Raised when the run was told to stop and has saved; the message says at which step."""


class Preemption:
    """A context manager that notices when SIGTERM or Ctrl-C tells any process of the run to stop.

    Several processes agree on the step at which they stop: JAX's coordination service catches SIGTERM,
    informs all of them, and picks the first step that none of them has passed. A second Ctrl-C has its usual
    effect: it interrupts at once.
    """

    def __init__(self) -> None:
        self._heard: list[int] = []  # signals
        self._before: dict[signal.Signals, Any] = {}
        self._woken: int | None = None
        # If several processes are joined, JAX itself handles SIGTERM.
        self._alone = not jax.distributed.is_initialized()

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            if self._alone:
                self._listen(signal.SIGTERM, self._remember)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a shell's background jobs
                self._listen(signal.SIGINT, self._interrupted)
            # An `exiting` around this context must not hear of these signals, even after it.
            self._woken = signal.set_wakeup_fd(-1)
        _in_charge.append(self)  # only now: before, an `exiting` around it may still be the one that hears
        return self

    def _listen(self, number: signal.Signals, handler: Callable[..., None]) -> None:
        self._before[number] = signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asked = len(self._heard)
        _in_charge.remove(self)
        if self._woken is not None:
            signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number, before in self._before.items():
            signal.signal(number, before)
        for late in self._heard[asked:]:  # for what is around this context: nobody asks it any more
            signal.raise_signal(late)

    def _remember(self, number: int, _: object) -> None:
        self._heard.append(number)

    def _interrupted(self, number: int, _: object) -> None:
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        os.write(2, HEARD)  # sys.stderr could be in the middle of a write, and would refuse another
        if self._alone:
            self._heard.append(number)
        else:
            signal.raise_signal(signal.SIGTERM)

    def tell(self) -> None:
        """Stop as on SIGTERM, which a thread has heard."""
        if self._alone:
            self._heard.append(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)

    @property
    def told(self) -> bool:
        """Whether a single process was told to stop, for work between two steps.

        Always false for joined processes: they agree only on steps. Orbax asks JAX about steps too, on a
        thread of its own, so that a number of another kind could make them miss the step to stop at.
        """
        return bool(self._heard)

    def reached(self, step: int) -> bool:
        """Return whether to save and stop before this step; every process must ask at every step."""
        return self.told if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def reached_before(self, start: int) -> bool:
        """Return whether to stop before a run goes on at step `start`; every process must ask once.

        The processes count from 0. If they are told to stop before the run begins, they agree on step 1, and
        a run that goes on at a later step would never meet it.
        """
        return self.told if self._alone else any(self.reached(step) for step in range(1, start + 1))


class _Exiting:
    """What `exiting` does when it is told to stop; see `Preemption` for the methods."""

    told = False

    def __init__(self) -> None:
        self._alone = not jax.distributed.is_initialized()

    def tell(self) -> None:
        if self._alone:
            _exit()
        signal.raise_signal(signal.SIGTERM)  # JAX tells all processes


_in_charge: list[Preemption | _Exiting] = []


@contextmanager
def exiting() -> Iterator[None]:
    """End the process with RESUMABLE as soon as SIGTERM tells it to stop, for work that a new start repeats.

    It ends as if killed, without waiting for a compilation, in which Python handles no signals. If several
    processes have joined before, SIGTERM to one of them ends all; then this context acts only until another
    is in charge. It does nothing outside of the main thread, and where SIGTERM is ignored.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield
        return
    context, ended = _Exiting(), threading.Event()
    with ExitStack() as stack:
        _in_charge.append(context)
        stack.callback(_in_charge.remove, context)
        if jax.distributed.is_initialized():  # then JAX itself handles SIGTERM
            notices = threading.Thread(target=_await_notice, args=(context, ended), daemon=True)
            notices.start()
            stack.callback(notices.join)
            stack.callback(ended.set)
        else:
            stack.enter_context(_woken())
        if any(around.told for around in _in_charge):  # before this context heard
            context.tell()
        yield


@contextmanager
def _woken() -> Iterator[None]:
    """Tell the context in charge of SIGTERM, even when the main thread runs no Python code."""
    waiting, waking = os.pipe()
    os.set_blocking(waking, False)

    def wait() -> None:
        while number := os.read(waiting, 1):
            context = None
            while number[0] == signal.SIGTERM and context is not _in_charge[-1]:  # until it stays in charge
                context = _in_charge[-1]
                context.tell()

    # The handler that does nothing is there only while the wakeup file is.
    earlier = signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if not jax.distributed.is_initialized():  # else JAX has set its own handler since
            signal.signal(signal.SIGTERM, before)
        signal.set_wakeup_fd(earlier)
        os.close(waking)
        thread.join()
        os.close(waiting)


def _await_notice(context: _Exiting, ended: threading.Event) -> None:
    """Exit as soon as one of several processes is told to stop, while a context is in charge."""
    last = False
    while not last:
        last = ended.wait(_POLL_SECONDS)  # then look once more, as the other processes do
        if _in_charge[-1] is not context:
            return
        client = multihost.get_jax_distributed_client()
        with suppress(jax.errors.JaxRuntimeError):  # there is no such key
            client.key_value_try_get(_NOTICE)
            with suppress(jax.errors.JaxRuntimeError):  # one of them does not come
                client.wait_at_barrier("told to stop", timeout_in_ms=round(1000 * _LEAVE_SECONDS))
            if jax.process_index() == 0:  # when it ends, the others fail
                time.sleep(_POLL_SECONDS)
            _exit()


def _exit() -> None:
    os.write(2, STOPPED)
    os._exit(RESUMABLE)

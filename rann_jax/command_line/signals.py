"""Handlers of signals for a while: what is set is put back, and signals that are ignored stay ignored.

How a training run hears that it must stop is in `training.preemption`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rann_jax.exit_codes import TERMINATED


@contextmanager
def handling(*numbers: signal.Signals, by: Callable[..., None]) -> Iterator[None]:
    """Handle signals in this context, except those ignored, as in a shell's background jobs.

    Outside of the main thread, where Python sets no handlers, it does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    heard = [number for number in numbers if main and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, by) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block by SystemExit, as Ctrl-C ends it, so that unfinished outputs are removed.

    A second SIGTERM ends the program at once. Where SIGTERM is ignored, it stays ignored.
    """

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(TERMINATED)

    with handling(signal.SIGTERM, by=end):
        yield

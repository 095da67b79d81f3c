"""A run in a process of its own, which is told to stop where its parent is."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rann_jax.preemption import EXIT_CODE

STOPPING = (signal.SIGTERM, signal.SIGINT)


def run(command: Sequence[str]) -> int:
    """Run a command without its output, and return its exit code; negative, the signal that killed it.

    SIGTERM or SIGINT to this process is SIGTERM to the child, at which a run saves; a SIGINT after that kills
    it. This process goes on when the child has ended, and the code is then 75, "told to stop", unless the
    child had an error of its own. Outside of the main thread, where Python hears no signals, the command is
    run and nothing else.
    """
    if threading.current_thread() is not threading.main_thread():
        return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    children: list[subprocess.Popen] = []
    told = False

    def pass_on(number: int, _: object) -> None:
        nonlocal told
        impatient = told and number == signal.SIGINT
        told = True
        for child in children:
            child.send_signal(signal.SIGKILL if impatient else signal.SIGTERM)

    with _hearing(pass_on):
        # A terminal's Ctrl-C goes to both: the child is deaf to it, else it would end before it has saved.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        if told:  # while it was started
            pass_on(signal.SIGTERM, None)
        code = children[0].wait()
    return EXIT_CODE if told and code <= 0 else code


@contextmanager
def _hearing(handler: Callable[..., None]) -> Iterator[None]:
    """Handles STOPPING inside, less what this process was started to ignore, as a shell's background jobs."""
    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

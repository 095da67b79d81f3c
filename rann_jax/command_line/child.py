"""Run a command in a child process that is told to stop when its parent is."""

import signal
import subprocess
import threading
from collections.abc import Sequence

from rann_jax.command_line.signals import handling
from rann_jax.exit_codes import RESUMABLE

STOPPING = (signal.SIGTERM, signal.SIGINT)


def run(command: Sequence[str]) -> int:
    """Run a command without its stdout and return its exit code; -N means that signal N killed it.

    SIGTERM or SIGINT to this process sends SIGTERM to the child, on which a run saves; a SIGINT after that
    kills the child. This process waits for the child to end, and the code is then 75, "told to stop", unless
    the child had an error of its own. Outside of the main thread, where Python handles no signals, the
    command is simply run.
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

    with handling(*STOPPING, by=pass_on):
        # A terminal's Ctrl-C goes to both processes: the child blocks it, so that it can save before it ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        if told:  # while the child was started
            pass_on(signal.SIGTERM, None)
        code = children[0].wait()
    return RESUMABLE if told and code <= 0 else code

"""A parent that is told to stop tells its child, waits for it, and exits with the code for a stopped run."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rann_jax.command_line import child
from rann_jax.exit_codes import RESUMABLE

pytestmark = pytest.mark.fast

# Stands in for a run: on SIGTERM it saves for a moment and exits with its code; Ctrl-C would end it at once.
RUN = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / "saving").touch()
    time.sleep(600 if sys.argv[2] == "slow" else 0.3)
    (folder / "saved").touch()
    sys.exit(int(sys.argv[2]))
if sys.argv[2] != "unready":
    signal.signal(signal.SIGTERM, save)
(folder / "ready").touch()
time.sleep(600)
"""


def told(folder: Path, *numbers: int, code: object = RESUMABLE) -> int:
    """Return the exit code of a run whose parent gets the signals while the run trains."""

    def tell():
        while not (folder / "ready").exists():
            time.sleep(0.01)
        for number in numbers:
            os.kill(os.getpid(), number)
            while code == "slow" and not (folder / "saving").exists():
                time.sleep(0.01)

    teller = threading.Thread(target=tell)
    handlers = [signal.signal(signal.SIGTERM, unheard), signal.signal(signal.SIGINT, unheard)]
    try:
        teller.start()
        return child.run([sys.executable, "-c", RUN, str(folder), str(code)])
    finally:
        teller.join()
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is unheard
        signal.signal(signal.SIGTERM, handlers[0])
        signal.signal(signal.SIGINT, handlers[1])


def unheard(*_):
    raise AssertionError("the signal came to the handler of before")


@pytest.mark.parametrize(
    "numbers", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM] * 2], ids=["TERM", "INT", "twice"]
)
def test_the_child_gets_the_signal_and_is_waited_for(tmp_path, numbers):
    assert told(tmp_path, *numbers) == RESUMABLE
    assert (tmp_path / "saved").exists()


def test_a_child_that_does_not_train_yet_ends_at_once(tmp_path):
    assert told(tmp_path, signal.SIGTERM, code="unready") == RESUMABLE
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_ctrl_c_ends_a_child_that_takes_long_to_save(tmp_path, first):
    assert told(tmp_path, first, signal.SIGINT, code="slow") == RESUMABLE
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(("code", "expected"), [(0, RESUMABLE), (2, 2)])
def test_an_error_while_it_stops_is_not_hidden(tmp_path, code, expected):
    """If the child ends with 0 anyway, the parent still reports being stopped: it has more work to do."""
    assert told(tmp_path, signal.SIGTERM, code=code) == expected


def test_a_terminals_interrupt_does_not_reach_the_child():
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)"
    assert child.run([sys.executable, "-c", code]) == 0
    assert child.run([sys.executable, "-c", "import sys; sys.exit(3)"]) == 3
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_command_runs_in_another_thread_too():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(child.run([sys.executable, "-c", "exit(4)"])))
    thread.start()
    thread.join()
    assert codes == [4]

"""Signals that stop a run, and what a second signal does."""

import signal
import subprocess
import sys

import jax
import pytest
from jax.experimental import multihost_utils

from rann_jax.exit_codes import RESUMABLE
from rann_jax.training.preemption import Preemption, exiting
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def handlers():
    """Set the signal handlers of a foreground program, however these tests were started."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, earlier in zip(numbers, before, strict=True):
        signal.signal(number, earlier)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_at_the_next_step(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached(3)
        assert not preemption.told
        signal.raise_signal(number)
        assert preemption.told
        assert preemption.reached(4)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts_at_once(capfd):
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        said = capfd.readouterr().err
        assert said == "\nstopping as soon as possible; press Ctrl-C again to interrupt at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert preemption.reached(4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    """A shell's background jobs ignore the Ctrl-C that is meant for the foreground job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert not preemption.reached(4)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_joined_processes_an_interrupt_reaches_jax_as_sigterm(monkeypatch):
    heard = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))  # stands in for JAX's handler
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert not preemption.told  # the processes agree on a step first
    assert heard == [signal.SIGTERM]


def test_joined_processes_find_a_step_that_they_agreed_on_before_they_began(monkeypatch):
    """Told to stop before their first step, JAX's processes agree on step 1, wherever they then go on."""
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    agreed = {1, 3}
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", agreed.__contains__)
    with Preemption() as preemption:
        assert preemption.reached_before(500)
        assert preemption.reached_before(1)
        assert not preemption.reached_before(0)
        agreed.remove(1)
        assert not preemption.reached_before(2)
        assert preemption.reached_before(3)


# The main thread is in a C function, as in a compilation, where Python calls no signal handlers.
BUSY = """
import ctypes, signal, sys
from rann_jax.training.preemption import Preemption, exiting

busy = ctypes.CDLL(None).system
with exiting():
    if "nested" in sys.argv:
        with Preemption(), exiting():
            pass
    if "saving" in sys.argv:
        with Preemption() as preemption:
            signal.raise_signal(signal.SIGTERM)
            print("told", preemption.told, flush=True)
    print("busy", flush=True)
    busy(b"exec sleep 20 >&- 2>&-")
print("went on")
"""


@pytest.mark.parametrize("before", ["", "nested", "saving"])
def test_sigterm_ends_work_that_a_new_start_repeats_at_once(before):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, before],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if before == "saving":
            assert process.stdout.readline() == "told True\n"
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=10)
    assert process.returncode == RESUMABLE
    assert (said, error) == ("", "\nstopped; nothing is lost: run the same command again to go on\n")


# Sends SIGTERM to itself before or after each of the operations that hand over from one context to another,
# in a child for each, which then goes on at once, or when its threads have run.
HANDED_OVER = """
import os, signal, time, warnings
from rann_jax.training import preemption

warnings.simplefilter("ignore", RuntimeWarning)  # JAX warns of forks
operations, sent = 0, False

def disturbed(operation, moment, pause):
    def send():
        global sent
        sent = True
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(pause)

    def call(*arguments, **options):
        global operations
        operations += 1
        if operations == moment:
            send()
        result = operation(*arguments, **options)
        if operations == -moment:
            send()
        return result

    return call

def run(moment, pause):
    signal.signal = disturbed(signal.signal, moment, pause)
    signal.set_wakeup_fd = disturbed(signal.set_wakeup_fd, moment, pause)
    class InCharge(list):
        append = disturbed(list.append, moment, pause)
        remove = disturbed(list.remove, moment, pause)
    preemption._in_charge = InCharge()
    told = False
    with preemption.exiting():
        with preemption.Preemption() as context:
            with preemption.exiting():
                pass
            told = heard(context)
        told = told or heard(context)
    os._exit(2 if told else 1 if sent else 3)

def heard(context):
    deadline = time.monotonic() + 5
    while sent and not context.told and time.monotonic() < deadline:
        time.sleep(0.01)
    return context.told

signal.signal(signal.SIGTERM, signal.SIG_DFL)
number, ended = 0, None
while ended != 3:  # until there are fewer operations
    number += 1
    for moment in (number, -number):
        for pause in (0.1, 0):
            child = os.fork()
            if child == 0:
                run(moment, pause)
            ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(moment, pause, ended, flush=True)
"""


def test_sigterm_is_never_lost_while_contexts_hand_over():
    """At each moment the process ends, or Preemption is told."""
    result = subprocess.run(
        [sys.executable, "-c", HANDED_OVER], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    outcomes = [line.split() for line in result.stdout.splitlines()]
    assert len(outcomes) > 4 * 15
    assert [each for each in outcomes[:-4] if each[2] not in ("2", str(RESUMABLE), "-15")] == []


def test_handlers_are_as_before_afterwards():
    for before in (signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGTERM, before)
        woken = signal.set_wakeup_fd(-1)
        with exiting():
            if before == signal.SIG_IGN:
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == before
        assert signal.set_wakeup_fd(-1) == woken

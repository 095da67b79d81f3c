"""Signals that stop a run, and what a second signal does."""

import signal

import jax
import pytest

from rann_jax.preemption import Preemption

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

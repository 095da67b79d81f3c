"""Who is told to stop: by which signal, and what a second one does."""

import signal

import jax
import pytest

from rann_jax.preemption import Preemption

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def handlers():
    """As a program in the foreground of a terminal has them, whatever these tests were started by."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, earlier in zip(numbers, before, strict=True):
        signal.signal(number, earlier)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_is_told_once(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.reached(3)
        signal.raise_signal(number)
        assert preemption.reached(4)
    assert signal.getsignal(number) is before


def test_a_second_interrupt_is_one(capfd):
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "\nstopping at the next step; Ctrl-C again interrupts at once\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert preemption.reached(4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_ignored_stays_ignored():
    """A shell's background jobs are deaf to the Ctrl-C that is meant for another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert not preemption.reached(4)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_of_joined_processes_an_interrupt_is_what_jax_hears(monkeypatch):
    heard = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))  # stands for JAX's
    with Preemption():
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGTERM]

"""Handlers of signals are put back, and are not set in other threads nor where a signal is ignored."""

import signal
import threading

import pytest

from rann_jax.command_line.signals import handling, unwinding_on_sigterm
from rann_jax.exit_codes import TERMINATED

pytestmark = pytest.mark.fast


def unheard(*_):
    raise AssertionError("the signal came to the handler of before")


@pytest.fixture(params=[unheard, signal.SIG_IGN], ids=["handled", "ignored"])
def before(request):
    """A handler of SIGTERM, until the test ends."""
    own = signal.signal(signal.SIGTERM, request.param)
    yield request.param
    assert signal.getsignal(signal.SIGTERM) is request.param
    signal.signal(signal.SIGTERM, own)


def test_a_signal_is_handled_unless_it_is_ignored(before):
    heard = []
    with handling(signal.SIGTERM, by=lambda number, _: heard.append(number)):
        signal.raise_signal(signal.SIGTERM)
    assert heard == ([] if before == signal.SIG_IGN else [signal.SIGTERM])


def test_other_threads_leave_the_handlers_alone(before):
    seen = []

    def work():
        with handling(signal.SIGTERM, by=print), unwinding_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_sigterm_ends_the_block_only_where_it_is_handled(before):
    seen = []

    def work():
        with unwinding_on_sigterm():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                seen.append(signal.getsignal(signal.SIGTERM))

    if before == signal.SIG_IGN:
        work()
        assert seen == [signal.SIG_IGN]
    else:
        with pytest.raises(SystemExit) as ended:
            work()
        assert ended.value.code == TERMINATED
        assert seen == [signal.SIG_DFL]  # a second one ends the program at once

"""Device errors that a user can fix become one line; programs show all others in full."""

import io
import sys

import jax
import pytest

from rann_jax import compile as compiler
from rann_jax.command_line.program import guarded

pytestmark = pytest.mark.fast

# Messages of JAX on a GPU and of libtpu, each with several lines.
GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.\nBufferAssignment: ..."
TPU = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error.\n"
    "Ran out of memory in memory space hbm. Used 21.08G of 15.75G hbm. Exceeded hbm capacity by 5.33G.\n..."
)


# Of a wait of Orbax, which has limits of its own.
LATE = (
    "DEADLINE_EXCEEDED: Barrier timed out. Id: Checkpointer:save::0.\n"
    "# of tasks that reached the barrier: 1/2.\nRPC: /tensorflow.CoordinationService/Barrier"
)


def failing(told):
    def work(*_):
        raise jax.errors.JaxRuntimeError(told)

    return work


def test_a_wait_for_other_processes_that_ran_out_is_one_line(capsys):
    assert guarded(failing(LATE)) == 2
    assert capsys.readouterr().err == (
        "error: DEADLINE_EXCEEDED: Barrier timed out. Id: Checkpointer:save::0.: another process of this "
        "run is alive but slow, or hangs: see what it says, then run the same command again\n"
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (GPU, "error: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.: use a "),
        (TPU, "error: Used 21.08G of 15.75G hbm. Exceeded hbm capacity by 5.33G.: use a smaller batch"),
    ],
)
def test_too_little_memory_is_one_line(told, says, capsys):
    assert guarded(failing(told)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(says)
    for key in (
        "config.batch_size",
        "config.eval.batch_size",
        "config.accumulate",
        "config.model.remat=True",
    ):
        assert key in line


def test_other_device_errors_are_raised():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        guarded(failing("INTERNAL: a kernel failed"))


def test_a_step_that_does_not_fit_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(compiler, "compiled_step", failing(TPU))
    arguments = ["--config", "tests/two_blocks.py", "--cpu-devices", "8"]
    assert compiler.main(arguments) == 1
    assert "does not fit: Used 21.08G of 15.75G hbm." in capsys.readouterr().out


def test_an_interruption_is_one_line(capsys):
    def work():
        raise KeyboardInterrupt

    assert guarded(work) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_unprintable_characters_are_replaced(monkeypatch):
    """A progress bar or a name that is not UTF-8 used to end the program."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert guarded(lambda: print("hör \u2588 caf\udce9.wav", flush=True) or 0) == 0
    assert terminal.buffer.getvalue().decode("latin-1") == "hör ? caf?.wav\n"


def test_in_the_c_locale_other_characters_are_shown_as_question_marks(monkeypatch):
    """There Python's stdout takes ASCII, and escaped bytes of file names."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert guarded(lambda: print("dog █") or 0) == 0
    terminal.flush()
    assert terminal.buffer.getvalue().strip() == b"dog ?"


def test_a_program_without_a_stdout_works(monkeypatch):
    """As when it is started with `>&-`, or by pythonw."""
    monkeypatch.setattr(sys, "stdout", None)
    assert guarded(lambda: sys.stdout.write("dog") - 3) == 0
    sys.stdout.close()

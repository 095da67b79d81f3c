"""What programs do with errors of the device: one line where a user can mend it, else all of it."""

import io
import sys

import jax
import pytest

from rann_jax import compile as compiler
from rann_jax.program import guarded

pytestmark = pytest.mark.fast

# As jax told it on a GPU, and as libtpu does, in several lines.
GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.\nBufferAssignment: ..."
TPU = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error.\n"
    "Ran out of memory in memory space hbm. Used 21.08G of 15.75G hbm. Exceeded hbm capacity by 5.33G.\n..."
)


def failing(told):
    def work(*_):
        raise jax.errors.JaxRuntimeError(told)

    return work


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


def test_other_errors_of_the_device_are_not_the_users():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        guarded(failing("INTERNAL: a kernel failed"))


def test_a_step_that_does_not_fit_is_said_so(monkeypatch, capsys):
    monkeypatch.setattr(compiler, "compiled_step", failing(TPU))
    arguments = ["--config", "tests/two_blocks.py", "--cpu_devices", "8"]
    assert compiler.main(arguments) == 1
    assert "does not fit: Used 21.08G of 15.75G hbm." in capsys.readouterr().out


def test_an_interruption_is_one_line(capsys):
    def work():
        raise KeyboardInterrupt

    assert guarded(work) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_terminal_that_lacks_a_character_shows_another(monkeypatch):
    """A bar, and a name that is not UTF-8: they ended the program."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert guarded(lambda: print("hör \u2588 caf\udce9.wav", flush=True) or 0) == 0
    assert terminal.buffer.getvalue().decode("latin-1") == "hör ? caf?.wav\n"

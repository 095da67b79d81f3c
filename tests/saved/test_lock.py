"""Two training runs never share a workdir, and a killed run leaves no lock."""

import errno
import fcntl
import signal
import subprocess
import sys

import pytest

from rann_jax import distributed
from rann_jax.errors import ConfigError
from rann_jax.saved import lock

pytestmark = pytest.mark.fast

HOLD = """
import pathlib, sys, time
from input_pipeline.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_training_is_refused_until_the_first_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="is being trained by another process"), lock.training(tmp_path):
            raise AssertionError("it trains")
        other.send_signal(signal.SIGKILL)
        other.wait()
    with lock.training(tmp_path):
        pass


def test_a_finished_or_failed_training_holds_no_lock(tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), lock.training(workdir):
        raise ZeroDivisionError
    for _ in range(2):
        with lock.training(workdir):
            pass
    with lock.training(workdir), pytest.raises(ConfigError, match="--workdir"), lock.training(workdir):
        pass


def test_only_the_primary_process_locks(tmp_path, monkeypatch):
    """The other processes learn from it whether it got the lock: here first yes, then no."""
    monkeypatch.setattr(distributed, "is_primary", lambda: False)
    with lock.training(tmp_path), lock.training(tmp_path):
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(distributed, "agree", lambda free: False)
    with pytest.raises(ConfigError, match="another process"), lock.training(tmp_path):
        pass


def test_training_works_on_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.training(tmp_path), lock.training(tmp_path):
        pass
    assert (
        capsys.readouterr()
        .err.splitlines()[0]
        .endswith("cannot be locked (No locks available): use it from one process")
    )


def test_a_link_named_like_the_lock_empties_no_file(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with lock.training(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"

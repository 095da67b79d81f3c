"""SIGTERM at any moment of a training command ends it with exit code 75, and the same command goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rann_jax.exit_codes import RESUMABLE
from rann_jax.training.preemption import STOPPED
from tests.conftest import REPOSITORY, launched
from tests.running import TINY, free_port

# Runs rann_jax.main, which stops for a while at the moment that its first argument names.
HELD = """
import ctypes, sys
import rann_jax.main, rann_jax.train
from input_pipeline import shards

moment = sys.argv.pop(1)
shards.CLIPS_PER_SHARD = 15

def hold(*arguments):
    print("held", flush=True)
    ctypes.CDLL(None).system(b"exec sleep 40 >&- 2>&-")  # as in a compilation, Python handles no signals

count, convert = 0, shards.Recipe.convert

def third_shard(self, clip):
    global count
    count += 1
    if count == 31:
        hold()
    return convert(self, clip)

if moment == "preparation":
    shards.Recipe.convert = third_shard
elif moment == "compilation":
    rann_jax.train.compiled_step = hold
elif moment == "predictions":
    rann_jax.train.save = hold
rann_jax.main.main()
"""


def start(moment: str, folder: Path, *flags: str) -> subprocess.Popen:
    """Start a training that is held at a moment."""
    command = [sys.executable, "-c", HELD, moment, "--config", f"{TINY}:steps=4", "--quiet"]
    command += ["--workdir", str(folder / "run"), f"--config.prepared_dir={folder / 'prepared'}"]
    command += ["--config.prepare.workers=1", "--jax_platforms=cpu", *flags]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=launched(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_held(run: list[subprocess.Popen]) -> None:
    for process in run:
        lines = iter(process.stdout.readline, "")
        if "held\n" not in lines:  # Gloo also prints here
            pytest.fail(process.communicate()[1])


def assert_stopped(run: list[subprocess.Popen], told: subprocess.Popen) -> None:
    """Check that SIGTERM to one process ends all of a run with RESUMABLE and one message each."""
    begin = time.monotonic()
    told.send_signal(signal.SIGTERM)
    ends = [process.communicate(timeout=100) for process in run]
    assert [process.returncode for process in run] == [RESUMABLE] * len(run), ends
    assert time.monotonic() - begin < 30
    assert all(error.count(STOPPED.decode()) == 1 for _, error in ends), ends
    assert all("Traceback" not in error for _, error in ends), ends


def test_a_single_process(tmp_path):
    for moment in ("preparation", "compilation", "predictions"):
        process = start(moment, tmp_path)
        wait_until_held([process])
        assert_stopped([process], process)
        if moment == "preparation":
            finished = list(tmp_path.glob("prepared/quickstart/*/unfinished.1.0.0/*.manifest.jsonl"))
            assert len(finished) == 2
    steps = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert steps == {"3", "4"}
    said, error = start("never", tmp_path).communicate(timeout=300)
    assert "test/accuracy" in said, error
    assert (tmp_path / "run" / "predictions" / "test.npz").exists()


def test_two_processes_in_a_compilation(tmp_path):
    """Both stop although only the second is told, and although neither gets to a step."""
    joined = [f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
    joined += ["--jax_cpu_collectives_implementation=gloo"]
    run = [start("compilation", tmp_path, *joined, f"--process_id={index}") for index in range(2)]
    wait_until_held(run)
    assert_stopped(run, run[1])


# The program's way out with RESUMABLE. The last object of a Python process sends it SIGTERM.
LATE = """
import os, signal, sys
import jax
from rann_jax import main
from rann_jax.training import preemption

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)

def program(_):
    with preemption.exiting():
        if address:
            jax.distributed.initialize(address, 1, 0)
    return preemption.RESUMABLE

last, address = Last(), sys.argv.pop()
main._program = program
main.main()
"""


@pytest.mark.parametrize("joined", [False, True])
def test_sigterm_does_not_change_the_code_of_a_stopped_run(joined):
    """Slurm, for one, sends it to the other processes as soon as the first has ended."""
    address = f"localhost:{free_port()}" if joined else ""
    ended = subprocess.run(
        [sys.executable, "-c", LATE, address], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode == RESUMABLE, ended.stderr

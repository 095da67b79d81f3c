"""Several processes on this machine (CPU devices, gloo) act as one run: same numbers, checkpoint and end.

The runs train tests/two_blocks.py. The order of sums over devices differs, and for a gradient near zero
Adam's step may take either sign. Largest differences seen after 40 steps in float32, between 1 device, 4
devices and 2 processes with 2 devices each: losses 4.8e-7, parameters 5.6e-4.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.command_line.config_file import load_config_file
from rann_jax.exit_codes import RESUMABLE
from rann_jax.experiment import build
from rann_jax.training.preemption import HEARD
from rann_jax.writers import read_metrics
from tests.conftest import REPOSITORY
from tests.running import free_port

TOTAL = 40
CONFIG = f"tests/two_blocks.py:steps={TOTAL}"
HEARTBEAT_SECONDS = 10


class Launcher:
    """Launches runs that share a prepared copy."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(
        self, workdir: Path, *, processes: int = 1, devices: int, last: Sequence[str] = ()
    ) -> list[subprocess.Popen]:
        """Start the processes of a run; `last` are flags for the last process only."""
        command = [sys.executable, "-m", "rann_jax.main", "--config", CONFIG, "--workdir", str(workdir)]
        command += [f"--config.prepared_dir={self.folder / 'prepared'}", "--quiet", "--jax_platforms=cpu"]
        command += ["--config.save_every=8", "--config.eval_every=20"]  # both take as long as many steps
        command += [f"--jax_num_cpu_devices={devices}", "--jax_cpu_collectives_implementation=gloo"]
        joined = [f"--coordinator=localhost:{free_port()}", f"--num_processes={processes}"]
        joined += [f"--heartbeat_seconds={HEARTBEAT_SECONDS}"]
        return [
            subprocess.Popen(
                [
                    *command,
                    *([*joined, f"--process_id={index}"] if processes > 1 else []),
                    *(last if index == processes - 1 else ()),
                ],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(processes)
        ]

    def finish(self, workdir: Path, **shape: int) -> str:
        """Run to the end and return the output of all processes."""
        said, codes = ends(self(workdir, **shape))
        assert not any(codes), said
        return said


def ends(run: list[subprocess.Popen], timeout: float = 900) -> tuple[str, list[int]]:
    said = "".join(process.communicate(timeout=timeout)[0] for process in run)
    return said, [process.returncode for process in run]


def wait(run: list[subprocess.Popen], moment: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900
    while not moment():
        assert all(process.poll() is None for process in run), ends(run)[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def steps_written(workdir: Path) -> int:
    return max((row["step"] for row in read_metrics(workdir / "metrics.jsonl")), default=0)


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def losses(workdir: Path) -> dict[int, float]:
    rows = read_metrics(workdir / "metrics.jsonl")
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def parameters(workdir: Path) -> list[np.ndarray]:
    experiment = build(load_config_file(CONFIG))
    with contextlib.closing(Checkpoints(workdir, experiment.config.best_metric)) as checkpoints:
        like = experiment.abstract_state(distributed.replicated(distributed.data_mesh()))
        state, record = checkpoints.restore(like, TOTAL)
    assert record.batches == TOTAL
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.params, state.ema_params))]


def assert_same_run(first: Path, second: Path) -> None:
    """Check that losses agree within 1e-5 and parameters within 2e-3; the module's docstring says why."""
    ours, theirs = losses(first), losses(second)
    assert list(ours) == list(theirs) == list(range(1, TOTAL + 1))
    difference = max(abs(ours[step] - theirs[step]) for step in ours)
    arrays = zip(parameters(first), parameters(second), strict=True)
    largest = max(np.abs(a - b).max() for a, b in arrays)
    print(f"largest difference of losses {difference:.2e}, of parameters {largest:.2e}")
    assert difference < 1e-5
    assert largest < 2e-3


@pytest.fixture(scope="module")
def launch(tmp_path_factory) -> Iterator[Launcher]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # runs inherit an ignored SIGINT
    yield Launcher(tmp_path_factory.mktemp("processes"))
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def alone(launch) -> Path:
    """The workdir of an undisturbed run of one process with one device."""
    workdir = launch.folder / "alone"
    launch.finish(workdir, devices=1)
    return workdir


@pytest.fixture(scope="module")
def told(launch, alone) -> Iterator[tuple[Path, list[int], str]]:
    """Workdir, exit codes and output of two processes with two devices each; the second got SIGTERM."""
    workdir = launch.folder / "told"
    run = launch(workdir, processes=2, devices=2)
    wait(run, lambda: steps_written(workdir) >= 4)
    run[1].send_signal(signal.SIGTERM)
    said, codes = ends(run)
    return workdir, codes, said


def test_sigterm_to_one_process_makes_all_save_the_same_step(told):
    workdir, codes, said = told
    assert codes == [RESUMABLE, RESUMABLE], said
    step = saved_steps(workdir)[-1]
    assert 4 <= step < TOTAL
    assert said.count(f"stopped at step {step}: run the same command again to resume") == 2
    assert steps_written(workdir) == step  # no later step was trained


@pytest.mark.parametrize("devices", [1, 4])
def test_one_process_resumes_a_checkpoint_of_two(launch, told, alone, devices):
    """On 1 or 4 devices, the rest of the run has the losses of the undisturbed run, and thus its data."""
    workdir = launch.folder / f"on_{devices}"
    shutil.copytree(told[0], workdir)
    launch.finish(workdir, devices=devices)
    assert_same_run(alone, workdir)


def test_kill_of_one_process(launch, told, alone):
    """The other process stops by itself; the same command resumes from the last checkpoint."""
    workdir = launch.folder / "killed"
    shutil.copytree(told[0], workdir)
    begun = saved_steps(workdir)[-1]
    run = launch(workdir, processes=2, devices=2)
    wait(run, lambda: saved_steps(workdir)[-1] > begun)
    kept = saved_steps(workdir)[-1]
    run[1].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    said, codes = ends(run)
    assert time.monotonic() - begin < 6 * HEARTBEAT_SECONDS, said
    assert codes[0] != 0, said
    assert saved_steps(workdir)[-1] >= kept > begun
    (workdir / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir()  # as when it was being written
    said = launch.finish(workdir, processes=2, devices=2)
    assert all(path.name.isdigit() for path in (workdir / "checkpoints").iterdir())
    assert said.count("test/accuracy") == 1  # only one process prints scores
    assert_same_run(alone, workdir)


def test_a_single_process_is_stopped_twice_and_resumes(launch, alone):
    workdir, step = launch.folder / "alone_told", 0
    for number in (signal.SIGTERM, signal.SIGINT):
        run, begun = launch(workdir, devices=1), step
        wait(run, lambda begun=begun: steps_written(workdir) > begun)
        run[0].send_signal(number)
        said, codes = ends(run)
        assert codes == [RESUMABLE], said
        step = saved_steps(workdir)[-1]
        assert begun < step < TOTAL
        *notice, last = said.splitlines()
        assert last == f"stopped at step {step}: run the same command again to resume"
        assert "".join(notice) == (number == signal.SIGINT) * HEARD.decode().strip()
    launch.finish(workdir, devices=1)
    assert losses(workdir) == losses(alone)  # bit-identical


def test_an_error_of_one_process_ends_all(launch):
    """The failed process reports its error and exit code at once; the other, which waits for it, stops."""
    begin = time.monotonic()
    run = launch(launch.folder / "one", processes=2, devices=1, last=["--config.prepared_dir=/proc/none"])
    said, _ = run[1].communicate(timeout=900)
    assert run[1].returncode == 2, said
    assert "error: " in said
    assert "/proc/none" in said
    said, _ = run[0].communicate(timeout=900)
    assert run[0].returncode != 0, said
    assert time.monotonic() - begin < 6 * HEARTBEAT_SECONDS, said

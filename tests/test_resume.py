"""After kill -9 at any moment, the same command ends the run bit-identical to an undisturbed one."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.experiment import build
from rann_jax.saved.workdir import load_config
from rann_jax.writers import read_metrics
from tests import two_blocks
from tests.conftest import REPOSITORY, launched

CONFIG = Path(two_blocks.__file__).relative_to(REPOSITORY)
TOTAL = 12


def launch(workdir: Path, prepared: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "rann_jax.main", "--config", f"{CONFIG}:steps={TOTAL}"]
    command += ["--workdir", str(workdir), f"--config.prepared_dir={prepared}", "--quiet"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=REPOSITORY, env=launched(), **pipes)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def kill_when(process: subprocess.Popen, moment) -> None:
    """Send SIGKILL as soon as `moment()` is true; the run must still be in progress then."""
    deadline = time.monotonic() + 300
    while not moment():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def steps_written(workdir: Path) -> int:
    rows = read_metrics(workdir / "metrics.jsonl")
    return max((row["step"] for row in rows), default=0)


def evaluated(workdir: Path) -> bool:
    return any("test/mAP" in row for row in read_metrics(workdir / "metrics.jsonl"))


def final_arrays(workdir: Path) -> list[np.ndarray]:
    experiment = build(load_config(workdir))
    checkpoints = Checkpoints(workdir, experiment.config.best_metric)
    assert checkpoints.latest_step == TOTAL
    mesh = distributed.data_mesh()
    state, record = checkpoints.restore(experiment.abstract_state(distributed.replicated(mesh)))
    checkpoints.close()
    assert record.batches == TOTAL
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def repeatable_rows(workdir: Path) -> list[dict]:
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(workdir / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The workdirs of an uninterrupted run and of a run that was killed at four moments."""
    folder = tmp_path_factory.mktemp("resume")
    whole, killed = folder / "whole", folder / "killed"
    prepared = folder / "prepared"
    finish(launch(whole, prepared))

    moments = [
        lambda: steps_written(killed) >= 2,  # before the first checkpoint
        lambda: any(killed.glob("checkpoints/*tmp*")),  # while a checkpoint is being written
        lambda: evaluated(killed),  # between two checkpoints, after an evaluation
        lambda: (killed / "checkpoints" / "9").is_dir(),  # just after a checkpoint
    ]
    for moment in moments:
        kill_when(launch(killed, prepared), moment)
    finish(launch(killed, prepared))
    return whole, killed


def test_state_is_bit_identical(runs):
    whole, killed = map(final_arrays, runs)
    assert len(whole) > 100
    for a, b in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_metrics_are_bit_identical(runs):
    whole, killed = map(repeatable_rows, runs)
    assert [row["step"] for row in whole] == sorted(row["step"] for row in whole)
    assert whole == killed


def test_predictions_are_bit_identical(runs):
    first, second = (np.load(run / "predictions" / "test.npz", allow_pickle=False) for run in runs)
    described = {"fingerprint", "task", "step", "max_crops"}
    assert set(first) == {"ids", "targets", "probabilities", "labels"} | described
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_allclose(first["probabilities"].sum(axis=1), 1, rtol=1e-5)


def test_the_same_checkpoints_are_kept(runs):
    whole, killed = (sorted(path.name for path in (run / "checkpoints").iterdir()) for run in runs)
    assert whole == killed


def test_a_finished_run_changes_nothing_when_launched_again(runs):
    whole, _ = runs
    before = (whole / "metrics.jsonl").read_text()
    finish(launch(whole, whole.parent / "prepared"))
    assert (whole / "metrics.jsonl").read_text() == before

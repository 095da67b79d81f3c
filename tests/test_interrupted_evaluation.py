"""A run that is told to stop stops in an evaluation too, and ends with the bits of an undisturbed run."""

import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest

import rann_jax.evaluate
import rann_jax.train
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.experiment import build
from rann_jax.saved.workdir import load_config
from rann_jax.training.preemption import PreemptedError
from rann_jax.writers import read_metrics
from tests.running import run_tiny
from tests.two_blocks import get_config

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")

BATCHES = 5  # of an evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("interrupted")


def train(workdir: Path) -> None:
    """Train 12 steps; evaluations are at steps 4, 8 and 12, saves at 3, 6, 9 and 12."""
    config = get_config()
    config.prepared_dir = str(workdir.parent / "prepared")
    run_tiny(config, workdir)


@pytest.fixture
def each_batch(monkeypatch):
    """A function that has another called before each batch of an evaluation, with the batch's number."""

    def call(work: Callable[[int], None]) -> list[int]:
        taken: list[int] = []

        def scored(self, variables, batch, scored=rann_jax.evaluate.SplitEvaluator._scored):
            taken.append(len(taken) + 1)
            work(taken[-1])
            return scored(self, variables, batch)

        monkeypatch.setattr(rann_jax.evaluate.SplitEvaluator, "_scored", scored)
        return taken

    return call


@pytest.fixture(scope="module")
def whole(folder, quickly_compiled, one_device) -> Path:
    """The workdir of an undisturbed run."""
    train(folder / "whole")
    return folder / "whole"


def left(workdir: Path) -> list:
    """Return all that a run leaves and that must not depend on where it stopped."""
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(workdir / "metrics.jsonl")
    ]
    experiment = build(load_config(workdir))
    with closing(Checkpoints(workdir)) as checkpoints:
        like = experiment.abstract_state(distributed.replicated(distributed.data_mesh()))
        best, (state, _) = checkpoints.best_step, checkpoints.restore(like)
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    predicted = np.load(workdir / "predictions" / "test.npz")["probabilities"]
    arrays = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]
    return [rows, best, kept, predicted.tobytes(), arrays]


@pytest.mark.parametrize("number", [1, 3])
def test_it_stops_between_two_batches_and_repeats_the_evaluation(number, folder, whole, each_batch):
    """The signal comes in the second batch of the first evaluation, at step 4, or of the last, at step 12."""
    workdir, step = folder / f"cut{number}", 4 * number
    told = BATCHES * (number - 1) + 2
    taken = each_batch(lambda n: signal.raise_signal(signal.SIGTERM) if n == told else None)
    with pytest.raises(PreemptedError, match=f"stopped at step {step}: run the same command again"):
        train(workdir)
    assert len(taken) <= told + 1  # one is read ahead
    assert "test/mAP" not in read_metrics(workdir / "metrics.jsonl")[-1]
    assert (workdir / "checkpoints" / str(step)).is_dir()
    train(workdir)
    assert left(workdir) == left(whole)


def test_a_finished_run_that_is_scored_again_stops_too(folder, whole, each_batch):
    """Its files stay as they are."""
    before = left(whole)
    taken = each_batch(lambda n: signal.raise_signal(signal.SIGTERM) if n == 2 else None)
    with pytest.raises(PreemptedError, match="stopped at step 12"):
        train(whole)
    assert len(taken) <= 3
    assert left(whole) == before


def test_it_begins_no_evaluation_once_told(folder, whole, each_batch, monkeypatch):
    """Told to stop twice before the evaluation of step 8, the run evaluates when it is left to go on."""
    workdir, taken = folder / "told", each_batch(lambda n: None)
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(rann_jax.train.Preemption, "reached", lambda self, step: step == 8)
            with pytest.raises(PreemptedError, match="stopped at step 8"):
                train(workdir)
        assert len(taken) == BATCHES  # of step 4
    train(workdir)
    assert len(taken) == 3 * BATCHES
    assert left(workdir) == left(whole)


def test_scores_are_written_once(folder, whole, monkeypatch):
    """The resumed run is killed after it has written the scores of step 8, which were not the best."""
    workdir = folder / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(rann_jax.train.Preemption, "reached", lambda self, step: step == 8)
        with pytest.raises(PreemptedError):
            train(workdir)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(workdir)
    assert read_metrics(workdir / "metrics.jsonl")[-1]["step"] == 8
    train(workdir)
    assert left(workdir) == left(whole)

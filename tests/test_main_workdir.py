"""A workdir that already holds a run: training is refused or resumes, evaluation works, nothing is lost."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import rann_jax.main
import rann_jax.train
from input_pipeline import DataError
from input_pipeline.preparation import prepare
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.experiment import build, data_options
from rann_jax.saved import lock, predictions
from rann_jax.saved import workdir as workdirs
from rann_jax.saved.record import Record
from rann_jax.tagger import Tagger
from rann_jax.training.preemption import PreemptedError
from rann_jax.writers import read_metrics
from tests import two_blocks
from tests.made_states import BUNDLE, like, state_at
from tests.running import TINY, rann, run_tiny, tiny

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared) -> Path:
    """The workdir of a finished run of a few steps."""
    workdir = tmp_path_factory.mktemp("trained")
    result = rann("--config", TINY, "--workdir", workdir, f"--config.prepared_dir={prepared}")
    assert result.returncode == 0, result.stderr
    assert "total parameters" in result.stderr
    assert "clips/s" in result.stderr
    assert "test/accuracy" in result.stdout
    return workdir


@pytest.fixture
def without_a_network(monkeypatch):
    """A function that gives the training loop a test's scores by step, without a network or predictions."""

    def put_in(scores: Callable[[int], float]) -> None:
        def step(state, batch):
            told = {
                "loss": 1 / (state.step + 3),
                "learning_rate": 1 / state.step,
                "finite": jnp.ones((), bool),
            }
            return dataclasses.replace(state, step=state.step + 1), told

        def restore_or_create(experiment, prepared, checkpoints, *_):
            if checkpoints.latest_step is None:
                return state_at(0), Record(0, 0.0, BUNDLE)
            return checkpoints.restore_newest(like())

        loop = {
            "restore_or_create": restore_or_create,
            "compiled_step": lambda *_: jax.jit(step),
            "evaluate": lambda _, state, told: {"test/mAP": scores(int(jax.device_get(state.step)))},
            "save": lambda *_: None,
        }
        for name, stands_for in loop.items():
            monkeypatch.setattr(rann_jax.train, name, stands_for)

    return put_in


def test_a_workdir_of_another_config_is_refused(trained, prepared):
    before = (trained / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate \(0\.001 there\).*--workdir"):
        run_tiny(tiny(prepared, **{"optimizer.learning_rate": 0.5}), trained)
    assert (trained / "config.json").read_text() == before


def test_a_workdir_in_use_is_refused(trained, prepared):
    """Training is refused before it touches any file of the other run."""
    files = [trained / name for name in ("config.json", "environment.json", "metrics.jsonl")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    with lock.training(trained), pytest.raises(ConfigError, match="is being trained by another process"):
        run_tiny(tiny(prepared), trained)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


@pytest.mark.parametrize("begun", ["before", "meanwhile"])
def test_initial_weights_are_of_the_workdir_under_the_lock(trained, prepared, tmp_path, monkeypatch, begun):
    """They are read before it, so that a mistake ends at once, but another run may begin or vanish then."""
    config, workdir, training = tiny(prepared, init_from="weights"), tmp_path / "run", lock.training

    def run_of_another() -> None:
        shutil.copytree(trained, workdir)
        workdirs.save_config(workdir, config)

    def after_another(workdir: Path):
        run_of_another() if begun == "meanwhile" else shutil.rmtree(workdir)
        return training(workdir)

    if begun == "before":
        run_of_another()
    sources = []
    monkeypatch.setattr(lock, "training", after_another)
    monkeypatch.setattr(rann_jax.main.pretrained, "load", lambda _: "weights")
    monkeypatch.setattr(rann_jax.main, "train", lambda *_, source, **__: sources.append(source))
    run_tiny(config, workdir)
    assert sources == [None if begun == "meanwhile" else "weights"]


def test_data_is_prepared_for_the_run_that_trains_in_the_workdir(trained, prepared, monkeypatch):
    """Preparing takes hours at worst; a run that waited for it would go on with what another had begun."""
    monkeypatch.setattr(rann_jax.main, "prepare", lambda **_: pytest.fail("data was prepared"))
    with lock.training(trained), pytest.raises(ConfigError, match="is being trained by another process"):
        run_tiny(tiny(prepared), trained)

    def locked_now(**_):
        with pytest.raises(ConfigError, match="is being trained"), lock.training(trained):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(rann_jax.main, "prepare", locked_now)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tiny(prepared), trained)


def test_a_run_of_another_config_that_ends_before_the_lock_is_refused(
    trained, prepared, tmp_path, monkeypatch
):
    config, workdir = tiny(prepared, **{"optimizer.learning_rate": 0.5}), tmp_path / "run"
    training = lock.training

    def after_another(workdir: Path):
        shutil.copytree(trained, workdir)
        return training(workdir)

    monkeypatch.setattr(lock, "training", after_another)
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate \(0\.001 there\).*--workdir"):
        run_tiny(config, workdir)
    assert (workdir / "config.json").read_text() == (trained / "config.json").read_text()


@pytest.mark.parametrize(
    ("fingerprints", "says"),
    [
        ({"train": "0" * 64}, r"config\.data_dir.*train.*fingerprint"),
        ({}, r"--workdir holds converted weights"),
    ],
    ids=["other data", "converted"],
)
def test_a_checkpoint_of_other_data_is_not_resumed(trained, prepared, tmp_path, fingerprints, says):
    """The config is the same, but the run's clips were others or are unknown: no file of it is touched."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    for path in copy.glob("checkpoints/*/record/metadata"):
        record = json.loads(path.read_text())
        record["bundle"]["fingerprints"] = fingerprints and record["bundle"]["fingerprints"] | fingerprints
        path.write_text(json.dumps(record))
    assert_refused_and_unchanged(tiny(prepared, **{"loader.prefetch": 3}), copy, says)


@pytest.fixture
def resumed(trained, prepared, tmp_path) -> Callable[[], int]:
    """A function that returns the step at which a run of 12 steps in `tmp_path / "run"` resumes."""
    shutil.copytree(trained, tmp_path / "run")
    experiment = build(tiny(prepared))
    config = experiment.config
    data = prepare(**data_options(config), splits=config.splits, progress=False)

    def resume() -> int:
        with closing(Checkpoints(tmp_path / "run", config.best_metric)) as checkpoints:
            mesh = distributed.data_mesh()
            return rann_jax.train.restore_or_create(experiment, data, checkpoints, mesh)[1].batches

    return resume


def test_a_damaged_checkpoint_is_moved_and_one_that_may_be_whole_is_not(resumed, tmp_path, monkeypatch):
    steps = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}

    def stale(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_restore", stale)
        with pytest.raises(ConfigError, match="checkpoint 12 cannot be read now"):
            resumed()
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == steps
    assert resumed() == 12
    (tmp_path / "run" / "checkpoints" / "12" / "record" / "metadata").write_text("{}")
    assert resumed() == max(int(step) for step in steps - {"12"})
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == steps - {"12"}
    assert [path.name for path in (tmp_path / "run" / "damaged_checkpoints").iterdir()] == ["12-0"]


def test_damaged_metrics_are_one_line(trained, prepared, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    (copy / "metrics.jsonl").write_text("nonsense\n")
    says = r"metrics\.jsonl is not the metrics of a run: line 1"
    assert_refused_and_unchanged(tiny(prepared, **{"loader.prefetch": 3}), copy, says)


def assert_refused_and_unchanged(config: ConfigDict, workdir: Path, says: str) -> None:
    files = [workdir / name for name in ("config.json", "environment.json", "metrics.jsonl")]
    before = [path.read_bytes() for path in files]
    with pytest.raises(ConfigError, match=says):
        run_tiny(config, workdir)
    assert [path.read_bytes() for path in files] == before


def test_eval_mode_needs_only_the_workdir(trained):
    before = (trained / "metrics.jsonl").read_text()
    before_probabilities = np.load(trained / "predictions" / "test.npz")["probabilities"]
    (trained / "predictions" / "test.npz").unlink()
    result = rann("--mode=eval", "--workdir", trained)
    assert result.returncode == 0, result.stderr
    last = json.loads(before.splitlines()[-1])
    assert f"test/mAP: {last['test/mAP']:.4f}" in result.stdout
    assert "test: 10 of 10 clips" in result.stdout
    assert "not what this run was started with" not in result.stderr
    again = np.load(trained / "predictions" / "test.npz")["probabilities"]
    np.testing.assert_array_equal(again, before_probabilities)
    assert (trained / "metrics.jsonl").read_text() == before


def test_a_run_goes_on_with_a_moved_copy_of_its_data(trained, prepared, tmp_path, capsys):
    (made,) = prepared.glob("quickstart/*/*/dataset_info.json")
    shutil.copytree(made.parent, tmp_path / "copy")
    shutil.copytree(trained, tmp_path / "run")
    moved = {"data_dir": str(tmp_path / "copy")}
    before = np.load(trained / "predictions" / "test.npz")["probabilities"]
    for mode in ("eval", "train"):
        (tmp_path / "run" / "predictions" / "test.npz").unlink()
        run_tiny(tiny(tmp_path / "none", **moved), tmp_path / "run", mode)
        again = np.load(tmp_path / "run" / "predictions" / "test.npz")["probabilities"]
        np.testing.assert_allclose(again, before, atol=1e-5)  # the launched program compiles otherwise
    assert "not what this run was started with" not in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match=r"config\.dataset\.seed=0, but it is 1 now"):
        run_tiny(tiny(tmp_path / "none", **moved, **{"dataset.seed": 1}), tmp_path / "other")


def test_eval_of_the_best_checkpoint(trained, capsys):
    """Its predictions lie beside those of the latest checkpoint, which other programs read."""
    folder = trained / "predictions"
    latest = [(folder / name).read_bytes() for name in ("test.npz", "test.json")]
    run_tiny(None, trained, "eval", "best")
    assert [(folder / name).read_bytes() for name in ("test.npz", "test.json")] == latest
    assert predictions.splits(trained) == ["test"]
    with closing(Checkpoints(trained)) as checkpoints:
        best = checkpoints.best_step
    assert np.load(folder / "test.best.npz")["step"] == best
    assert json.loads((folder / "test.best.json").read_text())["step"] == best
    assert (
        f"predictions of test by the best checkpoint, step {best}: {folder / 'test.best.npz'}"
        in capsys.readouterr().err
    )


def test_the_tagger_reproduces_the_predictions_of_evaluation(trained, prepared):
    """The tagger reads only the checkpoint; the test places evaluation's evenly spaced crops by hand."""
    tagger = Tagger.load(trained, batch_size=32)
    options = tagger.experiment.config.dataset.to_dict()
    data = prepare(
        options.pop("name"),
        data_dir="",
        prepared_dir=str(prepared),
        sample_rate=tagger.sample_rate,
        **options,
    )
    expected = np.load(trained / "predictions" / "test.npz")
    assert tagger.labels == tuple(expected["labels"])
    crops, counts, size = [], [], tagger.crop_samples
    for example in data.source("test"):
        wave = np.asarray(example["audio"]).astype(np.float32) / 32768
        starts = np.rint(np.linspace(0, len(wave) - size, -(-len(wave) // size))).astype(int)
        crops += [wave[start : start + size] for start in starts]
        counts.append(len(starts))
    parts = np.split(tagger.predict(np.stack(crops)), np.cumsum(counts)[:-1])
    means = np.stack([part.mean(axis=0) for part in parts])
    np.testing.assert_allclose(means, expected["probabilities"], atol=2e-6)


def test_divergence_names_the_step(tmp_path, prepared):
    config = tiny(prepared, **{"optimizer.schedule": "constant", "optimizer.learning_rate": 1e30})
    config.model = two_blocks.get_config().model
    with pytest.raises(DivergedError, match="the loss of step"):
        run_tiny(config, tmp_path)


def test_the_best_evaluation_is_saved_wherever_it_falls(tmp_path, prepared, without_a_network, monkeypatch):
    """Evaluated at 4, 8 and 12, saved at 3, 6, 9 and 12: step 4 is best, and each evaluation asks once."""
    without_a_network({4: 0.9, 8: 0.5, 12: 0.3}.__getitem__)
    asked, is_best = [], Checkpoints.is_best
    monkeypatch.setattr(Checkpoints, "is_best", lambda self, s: asked.append(s) or is_best(self, s))
    run_tiny(tiny(prepared), tmp_path)
    assert [scores["test/mAP"] for scores in asked if scores] == [0.9, 0.5, 0.3]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "9", "12"}
    with closing(Checkpoints(tmp_path, "test/mAP")) as checkpoints:
        assert checkpoints.best_step == 4
        assert checkpoints.record(4).batches == 4


def test_metrics_do_not_depend_on_where_the_run_stopped(tmp_path, prepared, without_a_network, monkeypatch):
    """The run is told to stop at step 7, between the rows of steps 6 and 8, and is then resumed."""
    without_a_network(lambda _: 0.5)
    config = tiny(prepared, log_every=4, eval_every=6, save_every=5)
    run_tiny(config, tmp_path / "whole")
    with monkeypatch.context() as told:
        told.setattr(rann_jax.train.Preemption, "reached", lambda self, step: step == 7)
        with pytest.raises(PreemptedError, match="stopped at step 7"):
            run_tiny(config, tmp_path / "cut")
    run_tiny(config, tmp_path / "cut")
    whole, cut = (
        [repeatable(row) for row in read_metrics(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "cut")
    )
    assert [row["step"] for row in whole] == [4, 6, 6, 8, 12, 12]
    assert whole == cut


def repeatable(row: dict) -> dict:
    """Return a row without the values that depend on the machine."""
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def test_the_last_step_is_evaluated_whatever_eval_every_is(tmp_path, prepared, without_a_network):
    without_a_network(lambda step: step / 100)
    run_tiny(tiny(prepared, total_steps=5, eval_every=3, save_every=100), tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert {row["step"]: row["test/mAP"] for row in rows if "test/mAP" in row} == {3: 0.03, 5: 0.05}
    with closing(Checkpoints(tmp_path, "test/mAP")) as checkpoints:
        assert checkpoints.best_step == 5


def test_the_loop_makes_no_transfers_that_nobody_asked_for(tmp_path, prepared, without_a_network):
    """They would stall every step."""

    def transferring(_: int) -> float:
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
            jnp.add(np.ones(3, np.float32), 1)
        return 0.5

    without_a_network(transferring)
    run_tiny(tiny(prepared, total_steps=2), tmp_path)


def test_checkpoints_that_a_killed_run_left_unfinished_are_removed(
    tmp_path, prepared, without_a_network, monkeypatch
):
    """Only training removes them, and only under its lock: another run may be writing them."""
    without_a_network(lambda _: 0.5)
    left_over = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "state" / "part"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("cut off")
    with lock.training(tmp_path), pytest.raises(ConfigError, match="is being trained"):
        run_tiny(tiny(prepared), tmp_path)
    with monkeypatch.context() as refused:
        refused.setattr(rann_jax.train, "restore_or_create", raising(ConfigError("other data")))
        with pytest.raises(ConfigError, match="other data"):
            run_tiny(tiny(prepared), tmp_path)
    with closing(Checkpoints(tmp_path, "test/mAP")) as checkpoints:
        assert checkpoints.latest_step is None
    assert left_over.exists()
    run_tiny(tiny(prepared, save_every=5), tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "10", "12"}


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_):
        raise error

    return fail


def test_a_full_disk_is_reported_before_writing(tmp_path, prepared, without_a_network, monkeypatch):
    without_a_network(lambda _: 0.5)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="No space left"):
        run_tiny(tiny(prepared), tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_disk_that_fills_while_saving_loses_nothing(trained, tmp_path, prepared):
    """A limit on file sizes stands in for a full disk: writes fail at the same place, without root."""
    workdir = tmp_path / "run"
    arguments = ["--config", TINY, "--workdir", workdir, "--quiet"]
    arguments.append(f"--config.prepared_dir={prepared}")
    limited = ["sh", "-c", 'ulimit -f 200 && exec "$@"', "sh"]
    result = rann(*arguments, prefix=limited)
    assert result.returncode == 2, result.stderr
    assert f"error: {workdir}: File too large: free space" in result.stderr
    assert "raised an exception" not in result.stderr  # the logs of Orbax's threads would bury that line
    # With free space again, the same command succeeds with the result of the undisturbed run.
    assert rann(*arguments).returncode == 0
    first, second = (np.load(run / "predictions" / "test.npz") for run in (trained, workdir))
    np.testing.assert_array_equal(first["probabilities"], second["probabilities"])

"""What a user can break: one line that names the key or file and the mend, exit code 2, nothing lost."""

import dataclasses
import errno
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

import configs.audioset
import configs.esc50
import configs.folder
import rann_jax.main
import rann_jax.train
from input_pipeline import DataError
from input_pipeline.prepare import prepare
from rann_jax import distributed, lock, predictions
from rann_jax.checkpoint import Checkpoints, Record
from rann_jax.config_file import explaining
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.experiment import build
from rann_jax.main import run
from rann_jax.preemption import PreemptedError
from rann_jax.program import guarded
from rann_jax.tagger import Tagger
from rann_jax.writers import read_metrics
from tests import two_blocks
from tests.conftest import REPOSITORY, launched
from tests.test_checkpoint import BUNDLE, like, state_at
from tests.tiny import get_config

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")

TINY = "tests/tiny.py"
DATA_MESH = distributed.data_mesh


@pytest.fixture
def all_devices(monkeypatch):
    """Eight, where `one_device` would have one."""
    monkeypatch.setattr(distributed, "data_mesh", DATA_MESH)


def rann(*arguments: object, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Run the program."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "rann_jax.main", *map(str, arguments)],
        cwd=REPOSITORY,
        env=launched(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess, *says: str) -> None:
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for text in says:
        assert text in lines[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, prepared) -> Path:
    """A finished run of a few steps."""
    workdir = tmp_path_factory.mktemp("trained")
    result = rann("--config", TINY, "--workdir", workdir, f"--config.prepared_dir={prepared}")
    assert result.returncode == 0, result.stderr
    assert "total parameters" in result.stderr
    assert "clips/s" in result.stderr
    assert "test/accuracy" in result.stdout
    return workdir


def tiny(prepared: Path, **overrides) -> ConfigDict:
    config = get_config()
    config.prepared_dir = str(prepared)
    config.update_from_flattened_dict(overrides)
    return config


def run_tiny(
    config: ConfigDict | None, workdir: Path, mode: str = "train", checkpoint: str = "latest"
) -> None:
    run(config, workdir, mode=mode, checkpoint=checkpoint, quiet=True)


@pytest.fixture
def without_a_network(monkeypatch):
    """The training loop with scores, by step, that a test says: no network is compiled, nothing predicted."""

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
            "evaluate": lambda _, state: {"test/mAP": scores(int(jax.device_get(state.step)))},
            "save": lambda *_: None,
        }
        for name, stands_for in loop.items():
            monkeypatch.setattr(rann_jax.train, name, stands_for)

    return put_in


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", TINY, "--config.seeed=1"], ["--config.seeed", "no such key"]),
        (["--config", TINY, "--config.model.wdith=1"], ["--config.model.wdith"]),
        (["--config", TINY, "--config.seed=one"], ["config.seed", "one"]),
        (["--config", "configs/absent.py"], ["configs/absent.py"]),
        (["--config", f"{TINY}:speed=1"], ["speed", "steps"]),
        (["--confg", TINY], ["confg"]),
        (["--config", TINY, "please"], ["please"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_flags(arguments, says, tmp_path, main_here, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    code = main_here([*arguments, "--workdir", str(tmp_path / "run")])
    assert_one_line(subprocess.CompletedProcess(arguments, code, *capsys.readouterr()), *says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--confg", TINY], "confg"), (["--config", TINY, "--config.t_c=0.7"], "config.t_c")],
    ids=["a flag", "a value"],
)
def test_what_the_launched_program_refuses(arguments, says, tmp_path):
    assert_one_line(rann(*arguments, "--workdir", tmp_path / "run"), says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"feature.name": "mels"}, ["config.feature", "log_mel"]),
        ({"feature.n_bins": 0}, ["config.feature", "n_bins"]),
        ({"model.name": "vgg"}, ["config.model", "vgg", "rann"]),
        ({"model.name": "rann-1x4-1"}, ["config.model.name=rann-1x4-1", "config.t_c=0.5"]),
        ({"t_c": 0.75, "model.name": "rann-0.75x4-1"}, ["config.t_c", "multiple of 16"]),
        ({"t_c": 0.33, "model.name": "rann-0.33x4-1"}, ["config.t_c", "frames"]),
        ({"task": "regression"}, ["config.task", "tagging"]),
        ({"dtype": "int8"}, ["config.dtype", "bfloat16"]),
        ({"optimizer.schedule": "sgd"}, ["config.optimizer", "sgd"]),
        ({"total_steps": 1}, ["config.optimizer", "total_steps"]),
        ({"augment.mixup.alpha": -1.0}, ["config.augment", "alpha"]),
        ({"num_classes": 7}, ["--config.num_classes=10", "quickstart"]),
        ({"splits.test": "dev"}, ["dev", "train"]),
        ({"batch_size": 0}, ["config.batch_size"]),
        ({"eval.batch_size": 12}, ["config.eval.batch_size=12", "8 devices"]),
        ({"dataset.name": "audiosat"}, ["audiosat", "quickstart"]),
        ({"dataset": {"name": "fsdd"}}, ["config.data_dir"]),
        ({"dataset": {"name": "fsdd"}, "data_dir": "/absent"}, ["/absent"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_wrong_values(overrides, says, tmp_path, prepared, all_devices):
    config = tiny(prepared)
    if "dataset" in overrides:
        config.dataset = overrides.pop("dataset")
    config.update_from_flattened_dict(overrides)
    with pytest.raises((ConfigError, DataError)) as error:
        run_tiny(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    for text in says:
        assert text in str(error.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


WHOLE = "must be a whole number of at least 1, not"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"seed": -1}, "config.seed must be a whole number between 0 and 4294967295, not -1"),
        ({"seed": 2**32}, "config.seed must be a whole number between 0 and 4294967295, not 4294967296"),
        ({"num_classes": 0}, f"config.num_classes {WHOLE} 0"),
        ({"eval.max_crops": 0}, f"config.eval.max_crops {WHOLE} 0"),
        ({"eval.max_crops": -1}, f"config.eval.max_crops {WHOLE} -1"),
        ({"log_every": 0}, f"config.log_every {WHOLE} 0"),
        ({"eval_every": 0}, f"config.eval_every {WHOLE} 0"),
        ({"save_every": 0}, f"config.save_every {WHOLE} 0"),
        ({"total_steps": 0, "optimizer.schedule": "constant"}, f"config.total_steps {WHOLE} 0"),
        ({"ema_decay": 1.5}, "config.ema_decay must be a number between 0 and 1, not 1.5"),
        ({"ema_decay": float("nan")}, "config.ema_decay must be a number between 0 and 1, not nan"),
        ({"optimizer.div_factor": 0.0}, "config.optimizer.div_factor must be a positive number, not 0.0"),
        ({"optimizer.b2": 1.0}, "config.optimizer.b2 must be a number from 0 to below 1, not 1.0"),
        ({"t_c": float("inf")}, "config.feature, config.t_c or config.sample_rate: "),
        (
            {"eval.splits": ("valid",)},
            "config.eval.splits=('valid',) must name one or more of config.splits: test, train",
        ),
        ({"eval.splits": ()}, "config.eval.splits=() must name one or more of config.splits: test, train"),
        (
            {"best_metric": "test/acuracy"},
            "config.best_metric='test/acuracy' is no score of config.eval.splits: use one of test/mAP, "
            "test/accuracy, test/macro_f1",
        ),
        (
            {"best_metric": "train/mAP", "task": "tagging"},
            "use one of test/mAP, test/mAUC, test/d_prime",
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_wrong_numbers_and_names_before_data_is_prepared(overrides, says, tmp_path, monkeypatch):
    monkeypatch.setattr(rann_jax.main, "prepare", lambda **_: pytest.fail("data was prepared"))
    config = tiny(tmp_path)
    config.update_from_flattened_dict(overrides)
    with pytest.raises(ConfigError) as error:
        run_tiny(config, tmp_path / "run")
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.fast
def test_overrides_need_a_config():
    argv = ["", "--config.data_dir=DIR"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with (
        pytest.raises(ConfigError, match=r"^--config\.data_dir needs --config: name the file"),
        explaining(argv),
    ):
        values(argv)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_missing_config(mode, tmp_path):
    with pytest.raises(ConfigError, match=r"--config is missing|config\.json does not exist"):
        run_tiny(None, tmp_path, mode)


def test_every_experiment_is_complete():
    """Each config of the repository builds, with the class count and split names of its data."""
    for path in sorted((REPOSITORY / "configs").glob("*.py")):
        if path.stem not in ("__init__", "base"):
            config = importlib.import_module(f"configs.{path.stem}").get_config()
            assert_complete(config)


@pytest.mark.parametrize("model", ["cnn14", "resnet38", "wavegram_logmel_cnn14"])
def test_the_baselines_are_complete(model):
    """PANNs' published recipe."""
    config = configs.audioset.get_config(f"model={model}")
    assert_complete(config)
    assert (config.sample_rate, config.t_c, config.batch_size, config.sampling) == (32000, 10, 32, "balanced")
    assert (config.optimizer.learning_rate, config.optimizer.amsgrad) == (1e-3, True)
    with pytest.raises(ValueError, match="name it alone"):
        configs.audioset.get_config(f"model={model},size=small")


def test_two_branches_are_a_preset():
    assert_complete(configs.esc50.get_config("feature=log_mel+wavegram,size=small"))


def assert_complete(config: ConfigDict) -> None:
    if config.model.name.startswith("rann"):
        config.model.blocks_per_stage = 1  # each is traced
    # PANNs' frames are centred from the first sample to the last: one more.
    more = config.feature.name.startswith("panns")
    assert build(config).image_shape[1] == config.feature.frames_per_second * config.t_c + more


@pytest.mark.fast
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("below", ["", "run"])
def test_workdir_that_is_a_file(mode, below, tmp_path, monkeypatch):
    monkeypatch.setattr(rann_jax.main, "prepare", lambda **_: pytest.fail("data was prepared"))
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=rf"--workdir={file / below}: {file} is a file: name a folder"):
        run_tiny(tiny(tmp_path), file / below, mode)
    assert file.read_text() == "mine"


@pytest.mark.fast
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(ConfigError, match=f"--workdir.*{tmp_path}/locked cannot be written to"):
        run_tiny(tiny(tmp_path), tmp_path / "locked" / "run")


@pytest.mark.fast
def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch, capsys):
    """An error of the system that no check foresees, as where a disk breaks."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{tmp_path}/config.json")

    monkeypatch.setattr(rann_jax.main, "run", refuse)
    monkeypatch.setattr(rann_jax.main.distributed, "start", lambda *_, **__: None)  # arrays are there already
    assert guarded(lambda: rann_jax.main._work(tmp_path)) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/config.json: Permission denied\n"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (DivergedError("step 3: lower\nthe rate"), 1, "error: step 3: lower the rate\n"),
        (PreemptedError("told to stop at step 4"), 75, "told to stop at step 4\n"),
        (KeyboardInterrupt(), 130, "interrupted: the same command goes on from the last checkpoint\n"),
    ],
    ids=["diverged", "told", "interrupted"],
)
def test_how_a_run_ends_early(error, code, says, tmp_path, monkeypatch, capsys):
    def end(*_, **__):
        raise error

    monkeypatch.setattr(rann_jax.main, "run", end)
    monkeypatch.setattr(rann_jax.main.distributed, "start", lambda *_, **__: None)
    assert rann_jax.main._work(tmp_path) == code
    assert capsys.readouterr().err == says


@pytest.mark.fast
def test_a_checkpoint_is_chosen_to_be_scored_alone(tmp_path):
    with pytest.raises(ConfigError, match="--checkpoint is for --mode=eval"):
        run_tiny(tiny(tmp_path), tmp_path / "run", checkpoint="best")
    assert not (tmp_path / "run").exists()


def test_a_start_that_was_refused_is_in_nobodys_way(tmp_path, prepared, all_devices):
    """Refused after the workdir is locked; the next for what is wrong with it, not because of the first."""
    for batch_size in (20, 12):
        with pytest.raises(
            ConfigError, match=f"config.batch_size={batch_size} cannot be shared by 8 devices"
        ):
            run_tiny(tiny(prepared, batch_size=batch_size), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_missing_workdir():
    assert_one_line(rann("--config", TINY), "--workdir")


def test_help_teaches():
    result = rann("--help")
    assert "--config configs/quickstart.py" in result.stdout
    assert "--mode" in result.stdout


@pytest.mark.parametrize("make", ["empty", "no_audio"])
def test_folder_without_audio(make, tmp_path, prepared):
    folder = tmp_path / "sounds"
    folder.mkdir()
    if make == "no_audio":
        (folder / "notes.txt").write_text("nothing to hear")
    config = configs.folder.get_config()
    config.data_dir, config.prepared_dir = str(folder), str(prepared)
    with pytest.raises(DataError, match=str(folder)):
        run_tiny(config, tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_folder(tmp_path, prepared):
    folder = tmp_path / "sounds"
    folder.mkdir(mode=0)
    config = configs.folder.get_config()
    config.data_dir, config.prepared_dir = str(folder), str(prepared)
    with pytest.raises(DataError, match=str(folder)):
        run_tiny(config, tmp_path / "run")


def test_workdir_of_another_config(trained, prepared):
    before = (trained / "config.json").read_text()
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate \(0\.001 there\).*--workdir"):
        run_tiny(tiny(prepared, **{"optimizer.learning_rate": 0.5}), trained)
    assert (trained / "config.json").read_text() == before


def test_workdir_of_another_training(trained, prepared):
    """Refused before anything of the other is touched."""
    files = [trained / name for name in ("config.json", "environment.json", "metrics.jsonl")]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    with lock.training(trained), pytest.raises(ConfigError, match="is being trained by another process"):
        run_tiny(tiny(prepared), trained)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


@pytest.mark.parametrize(
    ("fingerprints", "says"),
    [
        ({"train": "0" * 64}, r"config\.data_dir.*train.*fingerprint"),
        ({}, r"--workdir holds converted weights"),
    ],
    ids=["other data", "converted"],
)
def test_a_checkpoint_that_training_cannot_go_on_from(trained, prepared, tmp_path, fingerprints, says):
    """The same config, but the stored copy holds other clips, or none are known: nothing of it is touched."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    for path in copy.glob("checkpoints/*/record/metadata"):
        record = json.loads(path.read_text())
        record["bundle"]["fingerprints"] = fingerprints and record["bundle"]["fingerprints"] | fingerprints
        path.write_text(json.dumps(record))
    assert_refused_and_unchanged(tiny(prepared, **{"loader.prefetch": 3}), copy, says)


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


def test_eval_of_the_best_checkpoint(trained, capsys):
    """Beside the latest's, which are what other programs read."""
    folder = trained / "predictions"
    latest = [(folder / name).read_bytes() for name in ("test.npz", "test.json")]
    run_tiny(None, trained, "eval", "best")
    assert [(folder / name).read_bytes() for name in ("test.npz", "test.json")] == latest
    assert predictions.splits(trained) == ["test"]
    with closing(Checkpoints(trained)) as checkpoints:
        best = checkpoints.best_step
    assert np.load(folder / "test.best.npz")["step"] == best
    assert json.loads((folder / "test.best.json").read_text())["step"] == best
    assert f"test by the best checkpoint, step {best}: {folder / 'test.best.npz'}" in capsys.readouterr().err


def test_the_tagger_says_what_evaluation_wrote(trained, prepared):
    """From the checkpoint alone, with evaluation's evenly spaced crops placed by hand."""
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


def test_the_best_evaluation_is_saved_wherever_it_falls(tmp_path, prepared, without_a_network):
    """Evaluated at 4, 8 and 12, saved at 3, 6, 9 and 12: 4 is the best."""
    without_a_network({4: 0.9, 8: 0.5, 12: 0.3}.__getitem__)
    run_tiny(tiny(prepared), tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "9", "12"}
    with closing(Checkpoints(tmp_path, "test/mAP")) as checkpoints:
        assert checkpoints.best_step == 4
        assert checkpoints.record(4).batches == 4


def test_metrics_are_the_same_wherever_it_stopped(tmp_path, prepared, without_a_network, monkeypatch):
    """Told to stop at step 7, between the rows of 6 and 8, and gone on with."""
    without_a_network(lambda _: 0.5)
    config = tiny(prepared, log_every=4, eval_every=6, save_every=5)
    run_tiny(config, tmp_path / "whole")
    with monkeypatch.context() as told:
        told.setattr(rann_jax.train.Preemption, "reached", lambda self, step: step == 7)
        with pytest.raises(PreemptedError, match="told to stop at step 7"):
            run_tiny(config, tmp_path / "cut")
    run_tiny(config, tmp_path / "cut")
    whole, cut = (
        [repeatable(row) for row in read_metrics(tmp_path / run / "metrics.jsonl")]
        for run in ("whole", "cut")
    )
    assert [row["step"] for row in whole] == [4, 6, 6, 8, 12, 12]
    assert whole == cut


def repeatable(row: dict) -> dict:
    """A row less what depends on the machine."""
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def test_full_disk_is_said_before_anything_is_written(tmp_path, prepared, without_a_network, monkeypatch):
    without_a_network(lambda _: 0.5)
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="No space left"):
        run_tiny(tiny(prepared), tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_disk_that_fills_while_saving_loses_nothing(trained, tmp_path, prepared):
    """A limit on the size of files stands for the disk: writes fail in the same place, without root."""
    workdir = tmp_path / "run"
    arguments = ["--config", TINY, "--workdir", workdir, "--quiet"]
    arguments.append(f"--config.prepared_dir={prepared}")
    limited = ["sh", "-c", 'ulimit -f 200 && exec "$@"', "sh"]
    result = rann(*arguments, prefix=limited)
    assert result.returncode == 2, result.stderr
    assert f"error: {workdir}: File too large: free space" in result.stderr
    # With room again, the same command ends well and as the undisturbed run did.
    assert rann(*arguments).returncode == 0
    first, second = (np.load(run / "predictions" / "test.npz") for run in (trained, workdir))
    np.testing.assert_array_equal(first["probabilities"], second["probabilities"])

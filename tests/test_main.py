"""User errors give one line that names the key or file and the remedy, and exit code 2; nothing is lost."""

import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from absl import flags
from ml_collections import ConfigDict, config_flags

import configs.audioset
import configs.esc50
import configs.folder
import rann_jax.main
import rann_jax.train
from input_pipeline import DataError
from rann_jax import distributed
from rann_jax.command_line.config_file import explaining
from rann_jax.command_line.program import guarded
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.experiment import build
from rann_jax.saved import workdir as workdirs
from rann_jax.training.preemption import PreemptedError
from rann_jax.training.trace import NO_STEPS
from tests.conftest import REPOSITORY
from tests.running import TINY, assert_one_line, rann, run_tiny, tiny

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")


DATA_MESH = distributed.data_mesh


@pytest.fixture
def all_devices(monkeypatch):
    """Use all eight devices, although `one_device` is in use."""
    monkeypatch.setattr(distributed, "data_mesh", DATA_MESH)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prepared")


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
        (["--config", TINY, "--profile=7"], ["--profile=7", "START:STOP"]),
        (["--config", TINY, "--mode=eval", "--profile=1:2"], ["--profile", "--mode=train"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_wrong_flags_are_one_line(arguments, says, tmp_path, main_here, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    code = main_here([*arguments, "--workdir", str(tmp_path / "run")])
    assert_one_line(subprocess.CompletedProcess(arguments, code, *capsys.readouterr()), *says)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--confg", TINY], "confg"), (["--config", TINY, "--config.t_c=0.7"], "config.t_c")],
    ids=["a flag", "a value"],
)
def test_errors_of_the_launched_program_are_one_line(arguments, says, tmp_path):
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
def test_wrong_values_are_one_line(overrides, says, tmp_path, prepared, all_devices):
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


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_several_labels_are_not_classified(mode, tmp_path, monkeypatch):
    """Softmax targets of two ones sum to 2, and accuracy would count only one of the two labels as right."""
    monkeypatch.setattr(rann_jax.main, "train", lambda *_, **__: pytest.fail("it was trained"))
    monkeypatch.setattr(rann_jax.main, "evaluate_checkpoint", lambda *_: pytest.fail("it was scored"))
    folder = tmp_path / "sounds"
    folder.mkdir()
    rows = {"a.wav": "cat", "b.wav": "dog;bird", "c.wav": "bird", "d.wav": "cat"}
    for name in rows:
        soundfile.write(folder / name, np.zeros(8000), 16000)
    lines = [f"{name},{labels},fold{i % 2 + 1}" for i, (name, labels) in enumerate(rows.items())]
    (folder / "meta.csv").write_text("\n".join(["filename,label,split", *lines]))
    config = tiny(tmp_path / "prepared", num_classes=3, data_dir=str(folder))
    config.dataset, config.splits = {"name": "folder"}, {"train": "fold1", "test": "fold2"}
    if mode == "eval":
        workdirs.save_config(tmp_path / "run", config)
    with pytest.raises(ConfigError) as error:
        run_tiny(config, tmp_path / "run", mode)
    assert str(error.value) == (
        "config.task=classification is for one label per clip, but clip 'b.wav' of split 'fold2' has 2: "
        "set --config.task=tagging, or give each clip one label"
    )
    config.task, config.best_metric = "tagging", "test/mAP"
    monkeypatch.setattr(rann_jax.main, "train", lambda *_, **__: {})
    run_tiny(config, tmp_path / "tagging")


WHOLE = "must be a whole number of at least 1, not"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"seed": -1}, "config.seed must be a whole number between 0 and 4294967295, not -1"),
        ({"seed": 2**32}, "config.seed must be a whole number between 0 and 4294967295, not 4294967296"),
        ({"num_classes": 0}, "config.num_classes must be a whole number between 1 and 100000, not 0"),
        ({"num_classes": 100_001}, "config.num_classes must be a whole number between 1 and 100000, not 10"),
        ({"eval.max_crops": 0}, f"config.eval.max_crops {WHOLE} 0"),
        ({"eval.max_crops": -1}, f"config.eval.max_crops {WHOLE} -1"),
        ({"log_every": 0}, f"config.log_every {WHOLE} 0"),
        ({"eval_every": 0}, f"config.eval_every {WHOLE} 0"),
        ({"save_every": 0}, f"config.save_every {WHOLE} 0"),
        ({"total_steps": 0, "optimizer.schedule": "constant"}, f"config.total_steps {WHOLE} 0"),
        ({"ema_decay": 1.5}, "config.ema_decay must be a number between 0 and 1, not 1.5"),
        ({"ema_decay": float("nan")}, "config.ema_decay must be a number between 0 and 1, not nan"),
        ({"optimizer.div_factor": 0.0}, "config.optimizer.div_factor must be a positive number, not 0.0"),
        ({"optimizer.eps": -1e-8}, "config.optimizer.eps must be a positive number, not -1e-08"),
        ({"optimizer.b2": 1.0}, "config.optimizer.b2 must be a number of at least 0 and below 1, not 1.0"),
        ({"t_c": float("inf")}, "config.t_c must be a positive number, not inf"),
        ({"t_c": float("nan")}, "config.t_c must be a positive number, not nan"),
        ({"sample_rate": 0}, f"config.sample_rate {WHOLE} 0"),
        ({"model.blocks_per_stage": 0}, f"config.model.blocks_per_stage {WHOLE} 0"),
        ({"model.width": 2}, "config.model: width=2: set the width of a RANN in its name, rann-0.5x4-W"),
        (
            {"optimizer.head_learning_rate": float("inf")},
            "config.optimizer.head_learning_rate must be a positive number, not inf",
        ),
        ({"optimizer.frozen": ("trunk", 1)}, "config.optimizer: frozen=('trunk', 1): patterns must be text"),
        (
            {"eval.splits": ("valid",)},
            "config.eval.splits=('valid',) must name one or more of config.splits: test, train",
        ),
        ({"eval.splits": ()}, "config.eval.splits=() must name one or more of config.splits: test, train"),
        (
            {"best_metric": "test/acuracy"},
            "config.best_metric='test/acuracy' is not a score of config.eval.splits: use one of test/mAP, "
            "test/accuracy, test/macro_f1",
        ),
        (
            {"best_metric": "train/mAP", "task": "tagging"},
            "use one of test/mAP, test/mAUC, test/d_prime",
        ),
        ({"sampling": "random"}, "config.sampling must be one of uniform, balanced, weighted, not 'random'"),
        ({"accumulate": 3}, "config.batch_size=8 cannot be split evenly over "),
        ({"batch_norm_groups": 3}, "config.batch_norm_groups=3 does not divide the 8 clips"),
        ({"sharding.model": 3}, "config.sharding.model=3 does not divide "),
        ({"sharding.model": 0}, f"config.sharding.model {WHOLE} 0"),
        ({"sharding.rules": (("nix", 0),)}, "config.sharding.rules: 'nix' applies to no array"),
        ({"feature.n_fft": 10**18}, "config.feature, config.t_c or config.sample_rate: Unable to allocate"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_wrong_numbers_and_names_are_refused_before_preparation(overrides, says, tmp_path, monkeypatch):
    monkeypatch.setattr(rann_jax.main, "prepare", lambda **_: pytest.fail("data was prepared"))
    config = tiny(tmp_path)
    config.update_from_flattened_dict(overrides)
    with pytest.raises(ConfigError) as error:
        run_tiny(config, tmp_path / "run")
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("splits", {"test": "test"}, "config.splits.train is missing"),
        (
            "splits",
            {"train": "train", "test": 1},
            "config.splits.test=1 must be text: join several with +",
        ),
        ("splits", {"train": ("train",), "test": "test"}, "config.splits.train=('train',) must be text"),
        ("eval.splits", "test", "config.eval.splits='test' must be a tuple of names, such as ('test',)"),
        ("eval.splits", 1, "config.eval.splits=1 must name one or more of config.splits"),
        ("eval.splits", [["test"]], "config.eval.splits="),
        ("sharding.rules", None, "config.sharding.rules=None must be a tuple of (pattern, axis) pairs"),
        ("model.name", None, "config.model.name must be text, not None"),
        ("dataset.name", ["quickstart"], "config.dataset.name must be text, not ["),
        ("prepared_dir", 3, "config.prepared_dir must be text, not 3"),
        ("prepare.max_seconds", "long", "config.prepare.max_seconds must be a positive number, not 'long'"),
        ("t_c", None, "config.t_c must be a positive number, not None"),
        ("batch_size", None, f"config.batch_size {WHOLE} None"),
        ("num_classes", None, "config.num_classes must be a whole number between 1 and 100000, not None"),
    ],
)
def test_values_of_other_types_are_refused_before_preparation(key, value, says, tmp_path, monkeypatch):
    monkeypatch.setattr(rann_jax.main, "prepare", lambda **_: pytest.fail("data was prepared"))
    config = tiny(tmp_path)
    section, _, name = key.rpartition(".")
    with config.ignore_type():
        (config[section] if section else config)[name] = value
    with pytest.raises(ConfigError) as error:
        run_tiny(config, tmp_path / "run")
    assert str(error.value).startswith(says)
    assert not (tmp_path / "run").exists()


@pytest.mark.fast
def test_overrides_need_a_config():
    argv = ["", "--config.data_dir=DIR"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    with (
        pytest.raises(ConfigError, match=r"^--config\.data_dir needs --config: name the config file"),
        explaining(argv),
    ):
        values(argv)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_missing_config(mode, tmp_path):
    with pytest.raises(ConfigError, match=r"--config is missing|config\.json does not exist"):
        run_tiny(None, tmp_path, mode)


def test_every_experiment_is_complete():
    """Every config of the repository builds and gives images of the expected width."""
    for path in sorted((REPOSITORY / "configs").glob("*.py")):
        if path.stem not in ("__init__", "base"):
            config = importlib.import_module(f"configs.{path.stem}").get_config()
            assert_complete(config)


@pytest.mark.parametrize("model", ["cnn14", "resnet38", "wavegram_logmel_cnn14"])
def test_the_baselines_are_complete(model):
    """The baselines build and use PANNs' published recipe."""
    config = configs.audioset.get_config(f"model={model}")
    assert_complete(config)
    assert (config.sample_rate, config.t_c, config.batch_size, config.sampling) == (32000, 10, 32, "balanced")
    assert (config.optimizer.learning_rate, config.optimizer.amsgrad) == (1e-3, True)
    with pytest.raises(ValueError, match="leave those two presets out"):
        configs.audioset.get_config(f"model={model},size=small")


def test_two_branches_are_a_preset():
    assert_complete(configs.esc50.get_config("feature=log_mel+wavegram,size=small"))


def assert_complete(config: ConfigDict) -> None:
    if config.model.name.startswith("rann"):
        config.model.blocks_per_stage = 1  # every block is traced
    # PANNs' frames are centred on the first to the last sample, which makes one more.
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
def test_errors_of_the_system_are_one_line(tmp_path, monkeypatch, capsys):
    """A system error that no check foresees, such as a broken disk, is still one line."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{tmp_path}/config.json")

    monkeypatch.setattr(rann_jax.main, "run", refuse)
    monkeypatch.setattr(rann_jax.main.distributed, "start", lambda *_, **__: None)  # JAX has arrays already
    assert guarded(lambda: rann_jax.main._work(tmp_path, NO_STEPS)) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/config.json: Permission denied\n"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (DivergedError("step 3: lower\nthe rate"), 1, "error: step 3: lower the rate\n"),
        (PreemptedError("stopped at step 4"), 75, "stopped at step 4\n"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted: run the same command again to resume from the last checkpoint\n",
        ),
    ],
    ids=["diverged", "told", "interrupted"],
)
def test_exit_codes_and_messages_of_runs_that_end_early(error, code, says, tmp_path, monkeypatch, capsys):
    def end(*_, **__):
        raise error

    monkeypatch.setattr(rann_jax.main, "run", end)
    monkeypatch.setattr(rann_jax.main.distributed, "start", lambda *_, **__: None)
    assert rann_jax.main._work(tmp_path, NO_STEPS) == code
    assert capsys.readouterr().err == says


@pytest.mark.fast
def test_an_interrupted_run_exits_without_pythons_cleanup(monkeypatch):
    """After an interrupt of the compiler, Python's cleanup was seen to end in a segmentation fault."""
    monkeypatch.setattr(os, "_exit", lambda code: sys.exit(f"at once: {code}"))
    with pytest.raises(SystemExit, match="at once: 130"):
        rann_jax.main.distributed.leave(130, at_once=True)
    with pytest.raises(SystemExit) as failed:
        rann_jax.main.distributed.leave(2)
    assert failed.value.code == 2


@pytest.mark.fast
def test_a_checkpoint_can_be_chosen_only_for_evaluation(tmp_path):
    with pytest.raises(ConfigError, match="--checkpoint is for --mode=eval"):
        run_tiny(tiny(tmp_path), tmp_path / "run", checkpoint="best")
    assert not (tmp_path / "run").exists()


def test_a_refused_start_does_not_block_the_next(tmp_path, prepared):
    """Both starts are refused after the workdir is locked, the second for its own error, not the first's."""
    for num_classes in (7, 12):
        with pytest.raises(ConfigError, match=f"config.num_classes={num_classes}, but data set quickstart"):
            run_tiny(tiny(prepared, num_classes=num_classes), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_missing_workdir():
    assert_one_line(rann("--config", TINY), "--workdir")


def test_help_shows_an_example():
    result = rann("--help")
    assert result.returncode == 0
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

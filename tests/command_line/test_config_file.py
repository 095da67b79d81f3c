"""Flags can change the keys of a config and the options that it leaves at their defaults, nothing else."""

import sys

import pytest

from rann_jax.command_line.config_file import load_config_file
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from tests.running import TINY

pytestmark = pytest.mark.fast


def test_options_left_at_their_defaults_can_be_set():
    options = ["feature.fmin=50", "feature.htk=true", "feature.norm=None", "optimizer.div_factor=10"]
    options += ["augment.gain={}", "augment.roll={'probability': 0.5}", "splits.valid=train"]
    config = load_config_file(TINY, [f"--config.{option}" for option in options])
    assert config.splits.valid == "train"
    built = build(config)
    assert (built.front_end.fmin, built.front_end.htk, built.front_end.norm) == (50, True, None)
    names = [type(scheduled.augmentation).__name__ for scheduled in built.augment.audio]
    assert names == ["Gain", "Roll", "Mixup"]
    assert built.augment.audio[1].probability == 0.5


def test_one_value_can_replace_all_augmentations():
    assert load_config_file(TINY, ["--config.augment={}"]).augment.to_dict() == {}


def test_a_file_that_is_no_config_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # config files share this module name
    (tmp_path / "no.py").write_text("get_konfig = None\n")
    with pytest.raises(ConfigError, match=r"--config: the file must define get_config"):
        load_config_file(str(tmp_path / "no.py"))
    (tmp_path / "typo.py").write_text("def get_config(arg=None):\n    retrun 3\n")
    with pytest.raises(ConfigError, match=r"^--config: .*/typo.py, line 2: invalid syntax$"):
        load_config_file(str(tmp_path / "typo.py"))
    with pytest.raises(ConfigError, match=r"^--config: .*No such file .*'absent.py': paths start at"):
        load_config_file("absent.py")


@pytest.mark.parametrize(
    ("path", "says"), [("configs", "Is a directory: 'configs'"), ("", "is an empty string")]
)
def test_a_path_that_is_no_file_is_one_line(path, says):
    with pytest.raises(ConfigError, match=rf"^--config: .*{says}: paths start at the current folder"):
        load_config_file(path)


def test_an_error_inside_the_file_does_not_blame_a_flag(tmp_path):
    (tmp_path / "own.py").write_text("def get_config(arg=None):\n    x = [1]\n    return x['a']\n")
    with pytest.raises(ConfigError, match=r"^TypeError: list indices must be integers"):
        load_config_file(str(tmp_path / "own.py"), ["--config.feature.fmin=20"])


def test_a_file_is_loaded_once(tmp_path, capsys):
    (tmp_path / "own.py").write_text(
        "from configs.base import base\ndef get_config(arg=None):\n    print('loaded')\n    return base()\n"
    )
    load_config_file(str(tmp_path / "own.py"), ["--config.seed=3", "--config.feature.fmin=20"])
    assert capsys.readouterr().out == "loaded\n"


def test_the_config_is_locked_afterwards():
    with pytest.raises(AttributeError, match="locked"):
        load_config_file(TINY, ["--config.seed=1"]).seeed = 1


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("total_step=5", "--config.total_step: .* no such key; .*; did you mean 'total_steps'"),
        ("loader.num_thread=1", "--config.loader.num_thread: .* no such key; .*; did you mean 'num_threads'"),
        ("loadr.num_threads=1", "--config.loadr.num_threads: .* no such key; .*; did you mean 'loader'"),
        ("zzz=1", "--config.zzz: the config has no such key; configs/base.py lists them$"),
        ("loader.a.b=1", "--config.loader.a.b: the config has no such key; configs/base.py lists them$"),
        ("seed.x=1", "--config.seed.x: seed has no keys of its own: set --config.seed=VALUE"),
        ("feature.name.x=1", "--config.feature.name.x: feature.name has no keys"),
        ("eval.splits.x=1", "--config.eval.splits.x: eval.splits has no keys"),
        ("model.wdith=1", "--config.model.wdith: the config has no such key"),
        ("augment.gain.low_db=1", "--config.augment.gain=\"{'low_db': VALUE}\""),
        ("feature.fmim=50", "no option 'fmim'.*did you mean 'fmin'"),
        ("feature.fmin=low", "fmin='low' must be a number"),
        ("feature.n_fft=512.5", "n_fft=512.5 must be a whole number or None"),
        ("feature.htk=2", "htk=2 must be True or False"),
        ("feature.seconds=1", "config.feature.seconds: .*set config.t_c"),
        ("t_c=0.51", "config.t_c .*: frames_per_second=32 times t_c=0.51 is 16.32 frames, .*: use t_c=0.5$"),
        ("augment.gian={}", "config.augment: .*did you mean 'gain'"),
        ("augment.gain=3", "config.augment: gain=3 must be a dict of options of gain"),
        ("augment.gain={'low': 3}", "config.augment: gain has no option 'low': use one of low_db"),
        ("augment.gain={'until': 'late'}", "config.augment: gain: until='late' must be a number"),
        ("optimizer.div_facto=3", "config.optimizer: .*no option 'div_facto': .*did you mean 'div_factor'"),
        ("optimizer.total_steps=3", "config.optimizer: .*no option 'total_steps'"),
        ("optimizer.eps=small", "config.optimizer.eps must be a positive number, not 'small'"),
        ("optimizer.pct_start=small", "config.optimizer: .*pct_start='small' must be a number"),
    ],
)
def test_unknown_keys_and_wrong_values_are_one_line(flag, says):
    with pytest.raises(ConfigError, match=says) as told:
        build(load_config_file(TINY, [f"--config.{flag}"]))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "error", ["ValueError", "rann_jax.errors.ConfigError", "input_pipeline.errors.DataError"]
)
def test_an_error_that_a_config_file_raises_is_told_without_its_class(tmp_path, error):
    module = error.rpartition(".")[0] or "builtins"
    (tmp_path / "own.py").write_text(
        f'import {module}\ndef get_config(arg=None):\n    raise {error}("a.csv: no such column")\n'
    )
    with pytest.raises(ConfigError, match=r"^a\.csv: no such column$"):
        load_config_file(str(tmp_path / "own.py"))

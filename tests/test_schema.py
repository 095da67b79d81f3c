"""A config file, or a run's config.json, with a misspelt or missing key is refused by one line."""

import pytest

from configs.base import base
from rann_jax.command_line.config_file import load_config_file
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.saved.trained import load_trained
from rann_jax.saved.workdir import CONFIG_FILE, check_same_config, load_config, save_config
from rann_jax.schema import CLOSED, SCHEMA, SECTIONS, known
from tests import tiny

pytestmark = pytest.mark.fast


def test_the_keys_are_those_of_the_base_config():
    config = base().to_dict()
    assert set(config) == {name.partition(".")[0] for name in SCHEMA}
    for section in CLOSED:
        assert {f"{section}.{key}" for key in config[section]} == {
            name for name in SCHEMA if name.startswith(f"{section}.")
        }
    assert {key for key, value in config.items() if isinstance(value, dict)} == set(SECTIONS)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("config.total_step = 5", "config.total_step: there is no such key; .*; did you mean 'total_steps'"),
        ("config.eval.max_crop = 5", "config.eval.max_crop: .*; did you mean 'max_crops'"),
        ("config.loader.threads = 5", "config.loader.threads: .*; did you mean 'num_threads'"),
        ("config.zzz = 5", "config.zzz: there is no such key; configs/base.py lists them$"),
        ("del config.t_c", "config.t_c is missing: a config starts from configs/base.py"),
        ("del config.eval.splits", "config.eval.splits is missing"),
        ("del config.model.name", "config.model.name is missing"),
        ("del config.eval; config.eval = 5", "config.eval=5 must be a dict"),
    ],
)
def test_a_wrong_key_in_a_config_file_is_one_line(tmp_path, line, says):
    (tmp_path / "own.py").write_text(
        f"from tests import tiny\ndef get_config(arg=None):\n    config = tiny.get_config()\n    {line}\n"
        "    return config\n"
    )
    with pytest.raises(ConfigError, match=says) as told:
        build(load_config_file(str(tmp_path / "own.py")))
    assert "\n" not in str(told.value)


def test_configs_of_earlier_versions_lack_keys():
    config = tiny.get_config()
    for key in ("sampling", "init_from", "accumulate", "batch_norm_groups", "prepare", "sharding"):
        del config[key]
    assert build(config).config == config


def test_a_misspelt_key_in_the_config_of_a_run_is_one_line(tmp_path):
    save_config(tmp_path, tiny.get_config())
    path = tmp_path / CONFIG_FILE
    path.write_text(path.read_text().replace("total_steps", "total_stepss"))
    with pytest.raises(ConfigError, match=r"^\S+config.json: config.total_steps is missing") as told:
        load_config(tmp_path)
    assert "\n" not in str(told.value)


def test_runs_of_earlier_versions_may_have_keys_that_nothing_reads(tmp_path):
    """They were started with a config file that had them, when files were not checked."""
    config = tiny.get_config()
    config.note, config.loader.num_workers = "first try", 1
    save_config(tmp_path, config)
    check_same_config(tmp_path, tiny.get_config())
    assert known(config) == tiny.get_config()
    assert "note" not in load_config(tmp_path)
    extra = {"note": "first try", "loader": {"num_threads": 4, "prefetch": 8, "num_workers": 1}}
    trained = load_trained(tiny.write_workdir(tmp_path / "run", 0, ["a", "b"], extra=extra))
    assert "note" not in trained.experiment.config

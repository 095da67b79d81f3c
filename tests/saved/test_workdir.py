"""When a config counts as that of a workdir, so that a run may resume there or a finished cell be reused."""

import errno
import json
import os
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs.base import base
from rann_jax.command_line.program import one_line
from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import (
    CONFIG_FILE,
    SCORING,
    check_folder,
    check_same_config,
    check_trainable,
    replace_atomically,
    save_config,
)

pytestmark = pytest.mark.fast

# The keys and defaults of the first version that had augmentation.
EARLIEST = {
    "seed": 0,
    "data_dir": "",
    "prepared_dir": "",
    "dataset": {"name": "quickstart"},
    "splits": {"train": "train", "test": "test"},
    "loader": {"num_threads": 4, "prefetch": 8},
    "task": "classification",
    "num_classes": 10,
    "sample_rate": 44100,
    "t_c": 4.0,
    "feature": {"name": "log_mel", "frames_per_second": 128, "n_bins": 128},
    "augment": {"mixup": {"alpha": 1.0}},
    "model": {"name": "rann-4x4-1"},
    "dtype": "float32",
    "batch_size": 32,
    "total_steps": 1000,
    "optimizer": {"schedule": "one_cycle", "learning_rate": 0.001},
    "ema_decay": 0.999,
    "log_every": 50,
    "eval_every": 500,
    "save_every": 500,
    "best_metric": "test/mAP",
    "eval": {"splits": ["test"], "batch_size": 32, "max_crops": 16},
}


def save_run(workdir: Path, config: ConfigDict) -> None:
    """Write the parts of a trained run that the checks look at."""
    save_config(workdir, config)
    (workdir / "checkpoints" / "500").mkdir(parents=True)


def changed(changes: dict) -> ConfigDict:
    """Return the base config with some values changed, by dotted key."""
    config = base().to_dict()
    for key, value in changes.items():
        *path, name = key.split(".")
        tree = config
        for part in path:
            tree = tree[part]
        tree[name] = value
    return ConfigDict(config)


@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        ({"augment": {"gain": {}, "roll": {}, "spec_augment": {}}}, {"augment": {}}, "augment.gain"),
        ({"augment": {"gain": {}}}, {"augment": {"roll": {}}}, "augment.roll"),
        ({"augment.mixup": {"probability": 0.0}}, {"augment.mixup": {}}, "augment.mixup.probability"),
        ({"feature.fmin": 0.0}, {}, "feature.fmin"),
        ({"model.shortcut_norm": False}, {}, "model.shortcut_norm"),
        ({"accumulate": 2}, {}, "accumulate"),
        ({"model.blocks_per_stage": 1}, {}, "model.blocks_per_stage"),
        ({"optimizer.frozen": ("trunk",)}, {}, "optimizer.frozen"),
        ({"eval.splits": ()}, {}, "eval.splits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_that_affects_results_is_another_config(one, other, differing, tmp_path):
    for name, before, now in (("there", one, other), ("here", other, one)):
        save_run(tmp_path / name, changed(before))
        with pytest.raises(ConfigError, match=rf"differing in .*{differing}\b.*another --workdir"):
            check_same_config(tmp_path / name, changed(now))


def test_an_absent_key_is_reported(tmp_path):
    save_run(tmp_path, changed({"augment": {}}))
    says = r"differing in augment \(\{\} there\), augment\.gain \(absent there\): use"
    with pytest.raises(ConfigError, match=says):
        check_same_config(tmp_path, changed({"augment": {"gain": {}}}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data_dir": "/elsewhere", "prepare.workers": 3, "loader": {}, "sharding": {"model": 2, "rules": ()}},
        {"save_every": 7},
        {"t_c": 4, "eval.splits": ["test"]},  # JSON may write 4.0 as 4 and writes a tuple as a list
    ],
    ids=["nothing", "locations", "saves", "types"],
)
def test_a_change_that_affects_no_result_is_the_same_config(changes, tmp_path):
    save_run(tmp_path, base())
    check_same_config(tmp_path, changed(changes))


def test_configs_of_earlier_versions_are_the_same(tmp_path):
    """A key added to configs/base.py needs a value in the schema for the behaviour before it existed."""
    save_run(tmp_path, base())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(EARLIEST))
    check_same_config(tmp_path, base())


def test_scoring_options_may_differ_in_a_trained_run(tmp_path):
    """A trained run may be scored with other options; a resumed run must keep its own."""
    save_run(tmp_path, base())
    other = changed({"eval.batch_size": 7, "eval.max_crops": 1, "eval.splits": ("train",), "eval_every": 9})
    check_same_config(tmp_path, other, free=SCORING)
    with pytest.raises(ConfigError, match=r"differing in eval\.batch_size \(32 there\), eval\.max_crops"):
        check_same_config(tmp_path, other)
    with pytest.raises(ConfigError, match=r"differing in seed \(0 there\): use"):
        check_same_config(tmp_path, changed({"seed": 1}), free=SCORING)


def test_a_start_that_never_trained_allows_another_config(tmp_path):
    """config.json alone records an attempt; only a checkpoint or predictions show that training happened."""
    save_config(tmp_path, base())
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    check_same_config(tmp_path, changed({"seed": 1}))
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "test.npz").touch()
    with pytest.raises(ConfigError, match="another config"):
        check_same_config(tmp_path, changed({"seed": 1}))


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://bucket", "gs:/bucket/run"])
def test_a_bucket_address_is_refused_as_a_folder(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="mount the bucket and name its folder"):
        check_folder(Path(address))
    check_folder(tmp_path / "a:b" / "run")


@pytest.mark.parametrize("name", ["runs [1]/a", "[ab]", "a\\b"])
def test_a_path_with_pattern_characters_is_refused_for_training(tmp_path, name):
    check_folder(tmp_path / name)
    with pytest.raises(ConfigError, match=r"--workdir=.*name another folder"):
        check_trainable(tmp_path / name)
    check_trainable(tmp_path / "runs (1) #2 Füße?*")
    with pytest.raises(ConfigError, match=r"a path that is not UTF-8: name another folder"):
        check_trainable(tmp_path / os.fsdecode(b"runs\xff"))


def test_two_writers_each_replace_the_whole_file(tmp_path):
    path = tmp_path / ("n" * 255)
    with replace_atomically(path) as first, replace_atomically(path) as second:
        first.write("first")
        second.write("second, longer")
        assert len({first.name, second.name, str(path)}) == 3
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A machine that crashes after the renaming must not leave an empty file in place of the old one."""
    path, synced = tmp_path / "record", []
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.read_text())))
    with replace_atomically(path) as file:
        file.write("after")
    assert synced == [(len("after"), "before")]
    assert path.read_text() == "after"


def test_errors_name_the_file_not_its_temporary_one(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory") as caught, replace_atomically(tmp_path / "there"):
        pass
    assert one_line(caught.value) == f"{tmp_path}/there: Is a directory"
    with pytest.raises(OSError, match="too long"), replace_atomically(tmp_path / ("n" * 256)):
        pytest.fail("it cannot end well")
    with pytest.raises(OSError, match="No space") as full, replace_atomically(tmp_path / "full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write() raises it
    assert one_line(full.value) == f"{tmp_path}/full: No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]

"""What scores are of: how many of the clips there are, and which data."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from input_pipeline import prepare
from rann_jax.checkpoint import Checkpoints
from rann_jax.distributed import data_mesh
from rann_jax.errors import ConfigError
from rann_jax.evaluate import readable
from rann_jax.experiment import build, data_options
from rann_jax.main import run
from rann_jax.train import restore_or_create
from rann_jax.workdir import save_config
from tests.tiny_folds import get_config

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def write_sound(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, 8000), 16000)


def save_untrained(workdir, config):
    """What training leaves, without its minute of compilation."""
    data = prepare(**data_options(config), progress=False)
    checkpoints = Checkpoints(workdir, config.best_metric)
    checkpoints.save(0, *restore_or_create(build(config), data, checkpoints, data_mesh()), {})
    checkpoints.close()
    save_config(workdir, config)


def evaluate(folder, config):
    return run(config, folder / "run", mode="eval", checkpoint="latest", quiet=True)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An untrained checkpoint on 20 sounds, one of which is broken."""
    folder = tmp_path_factory.mktemp("evaluated")
    for label in ("cat", "dog"):
        for i in range(10):
            write_sound(folder / "sounds" / label / f"{label}{i}.wav", i)
    config = get_config()
    config.data_dir, config.prepared_dir = str(folder / "sounds"), str(folder / "prepared")
    config.prepare.max_failed_share = 0.5
    (folder / "sounds" / "cat" / "cat3.wav").write_bytes(b"not a sound")
    config.splits.test = config.splits.train = "+".join(f"fold{k}" for k in range(1, 6))
    save_untrained(folder / "run", config)
    return folder, config, evaluate(folder, config)


def test_what_was_left_out_is_counted_and_stored(evaluated):
    folder, _, scores = evaluated
    assert "test: 19 of 20 clips" in list(readable(scores))
    stored = json.loads((folder / "run" / "predictions" / "test.json").read_text())
    predicted = np.load(folder / "run" / "predictions" / "test.npz")
    assert stored["scores"] == scores
    assert stored["step"] == predicted["step"] == 0
    assert stored["fingerprint"] == predicted["fingerprint"]


def test_other_data_than_the_checkpoints_is_scored_and_said_so(evaluated, tmp_path, capsys):
    folder, config, _ = evaluated
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    write_sound(tmp_path / "sounds" / "cat" / "cat3.wav", 3)  # mended meanwhile
    other = config.copy_and_resolve_references()
    other.data_dir = str(tmp_path / "sounds")
    scores = evaluate(tmp_path, other)
    assert "test: 20 of 20 clips" in list(readable(scores))
    assert "warning: the data of test is not what this run was started with" in capsys.readouterr().err
    before, now = (
        json.loads((where / "run" / "predictions" / "test.json").read_text()) for where in (folder, tmp_path)
    )
    assert before["fingerprint"] != now["fingerprint"]


def test_other_labels_than_the_checkpoints_are_refused(evaluated, tmp_path):
    folder, config, _ = evaluated
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    (tmp_path / "sounds" / "cat").rename(tmp_path / "sounds" / "lion")
    other = config.copy_and_resolve_references()
    other.data_dir = str(tmp_path / "sounds")
    with pytest.raises(ConfigError, match=r"config\.data_dir: the labels"):
        evaluate(folder, other)

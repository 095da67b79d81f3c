"""What scores are of: how many of the clips there are, and which data."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from rann_jax.errors import ConfigError
from rann_jax.evaluate import readable
from rann_jax.main import run
from tests.tiny_folds import get_config


def write_sound(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, 8000), 16000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on 20 sounds, one of which, in the fold that is tested on, is broken."""
    folder = tmp_path_factory.mktemp("evaluated")
    for label in ("cat", "dog"):
        for i in range(10):
            write_sound(folder / "sounds" / label / f"{label}{i}.wav", i)
    config = get_config("steps=2")
    config.data_dir, config.prepared_dir = str(folder / "sounds"), str(folder / "prepared")
    config.dataset.max_failed_share = 0.5
    (folder / "sounds" / "cat" / "cat3.wav").write_bytes(b"not a sound")
    config.splits.test = config.splits.train = "+".join(f"fold{k}" for k in range(1, 6))
    scores = run(config, folder / "run", mode="train", checkpoint="latest", quiet=True)
    return folder, config, scores


def evaluate(folder, config):
    return run(config, folder / "run", mode="eval", checkpoint="latest", quiet=True)


def test_what_was_left_out_is_counted_and_stored(trained):
    folder, _, scores = trained
    assert "test: 19 of 20 clips" in list(readable(scores))
    stored = json.loads((folder / "run" / "predictions" / "test.json").read_text())
    predicted = np.load(folder / "run" / "predictions" / "test.npz")
    assert stored["scores"] == scores
    assert stored["step"] == predicted["step"] == 2
    assert stored["fingerprint"] == predicted["fingerprint"]


def test_other_data_than_the_checkpoints_is_scored_and_said_so(trained, tmp_path, capsys):
    folder, config, _ = trained
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


def test_other_labels_than_the_checkpoints_are_refused(trained, tmp_path):
    folder, config, _ = trained
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    (tmp_path / "sounds" / "cat").rename(tmp_path / "sounds" / "lion")
    other = config.copy_and_resolve_references()
    other.data_dir = str(tmp_path / "sounds")
    with pytest.raises(ConfigError, match=r"config\.data_dir: the labels"):
        evaluate(folder, other)

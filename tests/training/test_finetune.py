"""Fine-tuning beats training from scratch in the same number of steps, and resumes without its source.

Both data sets are synthesised: five classes for the source, and five others with few clips to fine-tune on.
"""

import shutil

import jax
import numpy as np
import pytest
import soundfile

from configs import finetune, folder
from input_pipeline.datasets.quickstart import SYNTHESISERS, synthesise
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.experiment import build
from rann_jax.main import run
from rann_jax.saved.workdir import load_config
from rann_jax.tagger import Tagger
from tests import tiny_panns

pytestmark = pytest.mark.usefixtures("one_device")

KNOWN, NEW = sorted(SYNTHESISERS)[0::2], sorted(SYNTHESISERS)[1::2]

# Seen with seeds 0, 1 and 2: accuracies of 0.45, 0.35 and 0.42 against 0.20, 0.17 and 0.20, on 60 clips.
STEPS, MARGIN = 20, 0.15


def write_sounds(path, labels, train, test):
    """Write sounds of one second to path/SPLIT/LABEL."""
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        for label in labels:
            (path / split / label).mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([seed, number])
                wave = synthesise(label, rng)[:16000]
                soundfile.write(path / split / label / f"{number}.wav", wave, 16000)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds")
    write_sounds(path / "known", KNOWN, train=24, test=1)
    write_sounds(path / "new", NEW, train=6, test=12)
    return path


def train(sounds, data, workdir, **overrides):
    """Train on a folder of sounds and return the scores."""
    config = tiny_panns.get_config()
    config.sample_rate = 16000
    config.feature = {"name": "log_mel", "frames_per_second": 32, "n_bins": 32, "top_db": 80.0}
    config.data_dir, config.prepared_dir = str(sounds / data), str(sounds / "prepared")
    config.optimizer.head_learning_rate = 1e-2
    config.update_from_flattened_dict(overrides)
    return run(config, workdir, mode="train", checkpoint="latest", quiet=False)


@pytest.fixture(scope="module")
def source(sounds):
    """The workdir of a run on the known classes."""
    steps = {"total_steps": 150, "log_every": 150, "eval_every": 150, "save_every": 150}
    train(sounds, "known", sounds / "source", **steps)
    return sounds / "source"


def state_of(workdir):
    experiment = build(load_config(workdir))
    checkpoints = Checkpoints(workdir, "test/accuracy")
    like = experiment.abstract_state(distributed.replicated(distributed.data_mesh()))
    state, _ = checkpoints.restore(like)
    checkpoints.close()
    return jax.device_get(state)


def test_fine_tuning_beats_training_from_scratch(sounds, source, tmp_path):
    steps = {"total_steps": STEPS, "log_every": STEPS, "eval_every": STEPS, "save_every": STEPS}
    tuned = train(sounds, "new", tmp_path / "tuned", init_from=str(source), **steps)
    scratch = train(sounds, "new", tmp_path / "scratch", **steps)
    assert tuned["test/accuracy"] > scratch["test/accuracy"] + MARGIN


def test_a_probe_resumes_bit_identical_without_its_source(sounds, source, tmp_path, capsys):
    overrides = {"init_from": str(tmp_path / "moved"), "optimizer.frozen": ("trunk",)}
    shutil.copytree(source, tmp_path / "moved")
    train(sounds, "new", tmp_path / "probe", **overrides)
    said = capsys.readouterr().err
    assert f"arrays of {tmp_path / 'moved'}: " in said
    assert "new      params/fc_audioset/kernel" in said
    begun, state = state_of(source), state_of(tmp_path / "probe")
    for name in ("params", "batch_stats", "ema_params", "ema_batch_stats"):
        average = name if name.startswith("ema") else f"ema_{name}"
        before, after = dict(getattr(begun, average)), dict(getattr(state, name))
        head = after.pop("fc_audioset", None), before.pop("fc_audioset", None)
        jax.tree.map(np.testing.assert_array_equal, before, after)
        assert head[0] is None or np.any(head[0]["kernel"] != head[1]["kernel"])
    # The embeddings still come from the source's trunk.
    wave = synthesise("siren", np.random.default_rng(0))
    embeddings = [Tagger.load(workdir).embed(wave, 16000) for workdir in (source, tmp_path / "probe")]
    np.testing.assert_array_equal(*embeddings)
    # Simulate a run that was killed after step 2 of 4, and whose source was deleted.
    shutil.copytree(tmp_path / "probe", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "moved")
    train(sounds, "new", tmp_path / "killed", **overrides)
    assert "resumed at step 2" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, state, state_of(tmp_path / "killed"))


def test_the_config_adopts_the_settings_of_the_source(sounds, source):
    config = finetune.get_config(f"data={sounds / 'new'},init_from={source},train=probe")
    build(config)
    assert (config.sample_rate, config.t_c, config.model.width) == (16000, 1.0, tiny_panns.WIDTH)
    assert config.num_classes == 5
    assert config.splits.to_dict() == {"train": "train", "test": "test"}
    assert config.optimizer.frozen == ("trunk",)
    with pytest.raises(ValueError, match=r"preset init_from: .*config\.json does not exist"):
        finetune.get_config(f"init_from={sounds}")
    with pytest.raises(ValueError, match=r"rann_jax\.convert"):
        finetune.get_config("init_from=rann.pth,network=rann-4x4-1")


@pytest.mark.fast
def test_a_folder_determines_classes_splits_and_task(tmp_path):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(100), 8000)
    table = tmp_path / "labels.csv"
    table.write_text("filename,label\n0.wav,dog\n1.wav,cat\n2.wav,dog\n3.wav,cat\n")
    config = folder.get_config(f"data={tmp_path}")
    assert (config.num_classes, config.task, config.data_dir) == (2, "classification", str(tmp_path))
    assert config.splits.to_dict() == {"train": "fold1+fold2+fold3", "test": "fold4"}
    table.write_text("filename,label,split\n0.wav,dog;owl,train\n1.wav,cat,eval\n")
    config = folder.get_config(f"data={tmp_path}")
    assert (config.num_classes, config.task) == (3, "tagging")
    assert config.splits.to_dict() == {"train": "train", "test": "eval"}
    with pytest.raises(ValueError, match="absent does not exist"):
        folder.get_config(f"data={tmp_path}/absent")

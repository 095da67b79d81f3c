"""Presets of the configs: allowed values and their effects."""

import pytest

from rann_jax.command_line.config_file import load_config_file
from rann_jax.errors import ConfigError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("presets", "says"),
    [
        ("esc50.py:size=medium", "preset size=medium must be one of deck, small"),
        ("esc50.py:fold=6", "preset fold=6 must be one of 1, 2, 3, 4, 5"),
        ("esc50.py:subset=esc20", "preset subset=esc20 must be one of esc50, esc10"),
        ("esc50.py:augment=some", "preset augment=some must be one of none, specaugment, mixup, all"),
        ("audioset.py:size=medium", "preset size=medium must be one of deck, small"),
        ("ravdess.py:size=medium", "preset size=medium must be one of deck, small"),
        ("ravdess.py:fold=5", "preset fold=5 must be one of 1, 2, 3, 4"),
        ("msos.py:fold=1", "no preset 'fold'"),
        ("finetune.py:train=some", "preset train=some must be one of all, probe"),
        ("finetune.py:data=.", "preset init_from is missing: add init_from=PATH, a workdir or"),
        ("finetune.py:init_from=a.pth", "preset data is missing: add data=DIR, the folder of your sounds"),
        (
            "finetune.py:init_from=docs",
            "preset init_from: docs/config.json does not exist: init_from must be the folder of a run or a ",
        ),
        ("finetune.py:init_from=.,network=resnet38", "preset network=resnet38: the workdir sets the network"),
    ],
)
def test_an_unknown_preset_is_one_line(presets, says):
    with pytest.raises(ConfigError) as told:
        load_config_file(f"configs/{presets}")
    assert str(told.value).startswith(says)


@pytest.mark.parametrize(
    ("presets", "network"),
    [
        ("", "rann-8x4-6"),
        (":model=rann-8x2-6", "rann-8x2-6"),
        (":size=small", "rann-4x4-1"),
        (":size=small,model=rann-4x2-1", "rann-4x2-1"),
        (":model=cnn14", "cnn14"),
    ],
)
def test_the_network_of_audioset(presets, network):
    assert load_config_file(f"configs/audioset.py{presets}").model.name == network


@pytest.mark.parametrize(
    ("presets", "train", "measure"),
    [
        ("esc50.py:fold=2,valid=fold5", "fold1+fold3+fold4", "accuracy"),
        ("esc50.py:fold=2,valid=fold4+fold5", "fold1+fold3", "accuracy"),
        ("gtzan.py:fold=10,valid=fold1", "+".join(f"fold{k}" for k in range(2, 10)), "accuracy"),
        ("rfcx.py:valid=fold2", "fold3+fold4+fold5", "mAP"),
        ("audioset.py:valid=balanced", "unbalanced", "mAP"),
        ("folder.py:valid=fold4", "fold1+fold2+fold3", "mAP"),
        ("finetune.py:valid=fold4", "fold1+fold2+fold3", "mAP"),
    ],
)
def test_a_split_is_held_out(presets, train, measure):
    """It is not trained on, it is scored, and it instead of the test split selects the best checkpoint."""
    config = load_config_file(f"configs/{presets}")
    assert config.splits.train == train
    assert config.splits.valid == presets.rpartition("=")[2]
    assert config.eval.splits == ("test", "valid")
    assert config.best_metric == f"valid/{measure}"


@pytest.mark.parametrize(
    "presets", ["esc50.py:fold=2,valid=fold2", "esc50.py:fold=2,valid=fold2+fold3", "msos.py:valid=train"]
)
def test_impossible_held_out_splits_are_refused(presets):
    with pytest.raises(ConfigError, match=r"^preset valid=[+\w]+ would hold out"):
        load_config_file(f"configs/{presets}")


@pytest.mark.parametrize(
    ("presets", "floor"),
    [
        ("size=small", 80.0),
        ("size=small,feature=log_mel+wavegram", 80.0),
        ("size=small,feature=mfcc", None),
        ("size=deck", None),
    ],
)
@pytest.mark.parametrize("name", ["esc50", "ravdess"])
def test_small_log_mels_of_silent_clips_have_a_floor(name, presets, floor):
    config = load_config_file(f"configs/{name}.py:{presets}")
    assert config.feature.get("top_db") == floor


@pytest.mark.fast
@pytest.mark.parametrize(("presets", "floor"), [("floor=70", 70.0), ("size=small,floor=inf", None)])
def test_a_floor_is_a_preset_of_esc50(presets, floor):
    assert load_config_file(f"configs/esc50.py:{presets}").feature.top_db == floor


@pytest.mark.parametrize("config", ["configs/esc50.py", "configs/quickstart.py", "configs/audioset.py"])
def test_a_frame_rate_need_not_be_whole(config):
    """As of frames 512 samples apart at 16 kHz."""
    flags = ["--config.feature.frames_per_second=31.25", "--config.t_c=4"]
    assert load_config_file(config, flags).feature.frames_per_second == 31.25

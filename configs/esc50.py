"""ESC-50 or its subset ESC-10: environmental sounds of 5 s, five official folds, from scratch.

    python -m rann_jax.main --config configs/esc50.py:subset=esc10,fold=1,size=small \
        --config.data_dir=DIR --workdir runs/esc10_fold1

DIR is a copy in the official layout (meta/esc50.csv or meta.csv, and audio/); without it the official
archive is downloaded. Training uses the four other folds. Measured with that command: accuracy 0.787, mAP
0.891 after 2.6 minutes on two cores of an AMD EPYC. With configs/esc50.py:fold=1, a copy at 16 kHz and
--config.sample_rate=16000: 0.785 and 0.859 after 3.8 minutes on one H100 (docs/results.md).
"""

import math

from ml_collections import ConfigDict

from configs.base import base, fold_splits, hold_out, parse_arg, small_for_cpu

CLASSES = {"esc50": 50, "esc10": 10}
FOLDS = (1, 2, 3, 4, 5)

# The deck's augmentations, of training clips only, for ablations; its sixth, cropping, is done by the loader.
# Mixup is the deck's, of audio. The probabilities are (ours).
SPECAUGMENT: dict[str, dict] = {"spec_augment": {}}
MIXUP: dict[str, dict] = {"between_class": {"probability": 0.5}}
SOUND: dict[str, dict] = {name: {"probability": 0.5} for name in ("stretch", "pitch", "white_noise")}
AUGMENT: dict[str, dict] = {
    "none": {},
    "specaugment": SPECAUGMENT,
    "mixup": MIXUP,
    "all": SOUND | MIXUP | SPECAUGMENT,
}


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: subset (esc50, esc10), fold (1 to 5, the one to test on), size (deck,
    small), feature, augment, floor, valid (a fold held out of training, as in valid=fold5; see `hold_out`).

    feature names a front end. It can also be wavegram, which the network learns from the waveform, or
    log_mel+wavegram, which gives both as two channels of one image. augment, for ablations, is none,
    specaugment, mixup, or all (stretching, pitch shifting, noise, mixup and SpecAugment); without it, the
    size decides. In every case, training crops are random.

    floor clips a log-mel that many dB below the clip's maximum: many clips end in digital silence, which is
    at -100 dB without a floor. size=small has a floor of 80 dB (docs/results.md), size=deck has none;
    floor=inf removes it for either.
    """
    choices = {"subset": CLASSES, "fold": FOLDS, "size": SIZES, "augment": ("", *AUGMENT)}
    preset = parse_arg(
        arg, choices, subset="esc50", fold=1, size="deck", feature="log_mel", augment="", floor=0.0, valid=""
    )
    config = base()
    config.dataset = {"name": "esc50", "subset": preset["subset"]}
    config.num_classes = CLASSES[preset["subset"]]
    config.splits = fold_splits(preset["fold"], FOLDS)
    config.feature.name = preset["feature"]
    config.best_metric = "test/accuracy"
    hold_out(config, preset["valid"])
    SIZES[preset["size"]](config)
    if preset["floor"]:
        config.feature.top_db = None if preset["floor"] == math.inf else preset["floor"]
    if preset["augment"]:
        config.augment = AUGMENT[preset["augment"]]
    return config


def deck(config: ConfigDict) -> None:
    """Set the deck's network and geometry, for an accelerator; steps and rate are (ours)."""
    config.model.name = "rann-4x4-6"
    config.t_c = 4.0
    config.dtype = "bfloat16"
    config.total_steps = 6000


def small(config: ConfigDict) -> None:
    """Adapt to two CPU cores; see `small_for_cpu`."""
    config.t_c = 4.0
    small_for_cpu(config, model="rann-4x4-1", total_steps=600, top_db=80.0)


SIZES = {"deck": deck, "small": small}

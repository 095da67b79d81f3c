"""tests/two_blocks.py on a folder of recordings, split into five folds.

python -m rann_jax.crossval --config tests/tiny_folds.py --features log_mel,mfcc --folds 1-2 --workdir W
"""

from pathlib import Path

import numpy as np
import soundfile
from ml_collections import ConfigDict

from configs.base import parse_arg
from tests import two_blocks


def get_config(arg: str | None = None) -> ConfigDict:
    preset = parse_arg(arg, feature="log_mel", fold=1, steps=4)
    config = two_blocks.get_config(f"steps={preset['steps']}")
    config.dataset = {"name": "folder", "csv": "", "label_column": "", "split_column": ""}
    config.num_classes = 2
    train = [fold for fold in range(1, 6) if fold != preset["fold"]]
    config.splits = {"train": "+".join(f"fold{k}" for k in train), "test": f"fold{preset['fold']}"}
    config.feature.name = preset["feature"]
    return config


def write_sound(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, 8000), 16000)

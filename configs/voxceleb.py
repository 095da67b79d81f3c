"""VoxCeleb1: which of 1251 speakers is heard; the official identification split.

    python -m rann_jax.main --config configs/voxceleb.py:size=small --config.data_dir=DIR --workdir W

DIR holds iden_split.txt and wav/ as published. Crops of 4 s, steps (ours). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(
        arg,
        {"name": "voxceleb"},
        num_classes=1251,
        t_c=4.0,
        steps=(200000, 8000),
        sample_rate=16000,  # the recordings' own
    )

"""DCASE 2020, task 1A: ten acoustic scenes recorded with nine devices, the official development split.

    python -m rann_jax.main --config configs/dcase2020_task1a.py:size=small --config.data_dir=DIR --workdir W

DIR holds audio/ and evaluation_setup/ as published. Crops of 8 s from clips of 10 s, steps (ours). Not run
yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(arg, {"name": "dcase2020_task1a"}, num_classes=10, t_c=8.0, steps=(30000, 1200))

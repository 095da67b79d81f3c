"""Making Sense of Sounds: five broad categories of sound, the official split.

    python -m rann_jax.main --config configs/msos.py:size=small --config.data_dir=DIR --workdir W

DIR holds Development/, Evaluation/ and their log sheets as published. Crops of 4 s from clips of 5 s, steps
(ours). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(arg, {"name": "msos"}, num_classes=5, t_c=4.0, steps=(6000, 1200))

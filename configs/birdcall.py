"""Cornell Birdcall Identification: 264 species of birds, one per recording.

    python -m rann_jax.main --config configs/birdcall.py:fold=1,size=small --config.data_dir=DIR --workdir W

DIR holds train.csv and train_audio/ as published. Five folds; crops of 5 s, the length that the competition
scored; steps (ours). Recordings of more than ten minutes are left out and listed. Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(
        arg,
        {"name": "birdcall", "folds": 5},
        num_classes=264,
        t_c=5.0,
        steps=(100000, 4000),
        folds=(1, 2, 3, 4, 5),
        sample_rate=32000,
    )

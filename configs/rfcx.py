"""Rainforest Connection: 24 species of birds and frogs, several per excerpt.

    python -m rann_jax.main --config configs/rfcx.py:fold=1,size=small --config.data_dir=DIR --workdir W

DIR holds train_tp.csv and train/ as published. Excerpts of 10 s around confirmed calls, five folds of whole
recordings, crops of 8 s, steps (ours). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    config = on_data_set(
        arg,
        {"name": "rfcx", "folds": 5, "seconds": 10.0},
        num_classes=24,
        t_c=8.0,
        steps=(10000, 1200),
        folds=(1, 2, 3, 4, 5),
        sample_rate=48000,  # the recordings' own
        best_metric="test/mAP",
    )
    config.task = "tagging"
    return config

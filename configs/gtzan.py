"""GTZAN: ten genres of music, excerpts of 30 s.

    python -m rann_jax.main --config configs/gtzan.py:fold=1,size=small --config.data_dir=DIR --workdir W

DIR holds genres/ as published. The test is on one of ten folds. To use the fault-filtered lists, if they are
in DIR, set --config.splits.train=train --config.splits.test=test. Crops of 8 s, steps (ours). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(
        arg,
        {"name": "gtzan", "folds": 10},
        num_classes=10,
        t_c=8.0,
        steps=(6000, 1200),
        folds=range(1, 11),
        sample_rate=22050,  # the recordings' own
    )

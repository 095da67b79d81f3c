"""ICBHI 2017: crackles and wheezes in respiratory cycles, the official split of the recordings.

    python -m rann_jax.main --config configs/icbhi.py:size=small --config.data_dir=DIR --workdir W

DIR holds the recordings, their annotations and ICBHI_challenge_train_test.txt. Half of the cycles are normal,
so training draws the classes equally often. Crops of 4 s, steps (ours). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    config = on_data_set(
        arg,
        {"name": "icbhi"},
        num_classes=4,
        t_c=4.0,
        steps=(6000, 1800),
        sample_rate=16000,
        best_metric="test/macro_f1",
    )
    config.sampling = "balanced"
    return config

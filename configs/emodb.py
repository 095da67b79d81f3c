"""EmoDB: seven emotions in the German speech of ten actors, tested on held-out speakers.

    python -m rann_jax.main --config configs/emodb.py:fold=1,size=small --config.data_dir=DIR --workdir W

DIR holds the sound files under their published names (wav/03a01Fa.wav). Five folds of two speakers, crops of
3 s, steps (ours; neither the deck nor the paper states any). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(
        arg,
        {"name": "emodb", "folds": 5},
        num_classes=7,
        t_c=3.0,
        steps=(3000, 1000),
        folds=(1, 2, 3, 4, 5),
        sample_rate=16000,  # the recordings' own
    )

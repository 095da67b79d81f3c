"""RAVDESS: eight emotions in the speech of 24 actors, tested on held-out actors.

    python -m rann_jax.main --config configs/ravdess.py:fold=1,size=small \
        --config.data_dir=DIR --workdir runs/ravdess_fold1

DIR holds the sound files as published (Actor_01/ to Actor_24/), or in any other folder or format. Four folds
of six actors, steps (ours; the deck and the paper state none). From the paper: crops of 3 s. The deck, from
scratch: accuracy 0.739 with mel, 0.774 with five features.
"""

from ml_collections import ConfigDict

from configs.base import on_data_set


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: see `on_data_set`."""
    return on_data_set(
        arg,
        {"name": "ravdess", "folds": 4},
        num_classes=8,
        t_c=3.0,
        steps=(6000, 1800),
        folds=(1, 2, 3, 4),
        small_top_db=80.0,  # clips begin and end in near silence
    )

"""RAVDESS: eight emotions in the speech of 24 actors, tested on actors that were not trained on.

    python -m rann_jax.main --config configs/ravdess.py:fold=1,size=small \
        --config.data_dir=DIR --workdir runs/ravdess_fold1

DIR holds the sound files as published (Actor_01/ to Actor_24/), or in any other folder or format. Four folds
of six actors (ours; the deck and the paper state none). From the paper: crops of 3 s. The deck, from
scratch: accuracy 0.739 with mel, 0.774 with five features.
"""

from ml_collections import ConfigDict

from configs.base import base, fold_splits, parse_arg, small_for_cpu

FOLDS = (1, 2, 3, 4)


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: fold (1 to 4, the one tested on), size (deck, small), feature."""
    preset = parse_arg(arg, fold=1, size="deck", feature="log_mel")
    if preset["fold"] not in FOLDS or preset["size"] not in SIZES:
        raise ValueError("presets: fold is 1 to 4, size is deck or small")
    config = base()
    config.dataset = {"name": "ravdess", "folds": len(FOLDS)}
    config.num_classes = 8
    config.splits = fold_splits(preset["fold"], FOLDS)
    config.t_c = 3.0
    config.feature.name = preset["feature"]
    config.best_metric = "test/accuracy"
    SIZES[preset["size"]](config)
    return config


def deck(config: ConfigDict) -> None:
    """The deck's network at its geometry, for an accelerator; steps are ours."""
    config.model.name = "rann-3x4-6"
    config.dtype = "bfloat16"
    config.total_steps = 6000


def small(config: ConfigDict) -> None:
    """For two CPU cores; see `small_for_cpu`."""
    if config.feature.name == "log_mel":
        config.feature.top_db = 80.0  # clips begin and end in near silence
    small_for_cpu(config, model="rann-3x4-1", total_steps=1800)


SIZES = {"deck": deck, "small": small}

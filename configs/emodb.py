"""EmoDB: seven emotions in the German speech of ten actors, tested on speakers that were not trained on.

    python -m rann_jax.main --config configs/emodb.py:fold=1,size=small --config.data_dir=DIR --workdir W

DIR holds the sound files under their published names (wav/03a01Fa.wav). Five folds of two speakers, crops of
3 s, steps (ours; neither the deck nor the paper gives any). Not run yet.
"""

from ml_collections import ConfigDict

from configs.base import base, fold_splits, parse_arg, small_for_cpu

FOLDS = (1, 2, 3, 4, 5)


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: fold (1 to 5, the one tested on), size (deck, small), feature."""
    preset = parse_arg(arg, fold=1, size="deck", feature="log_mel")
    if preset["fold"] not in FOLDS or preset["size"] not in SIZES:
        raise ValueError("presets: fold is 1 to 5, size is deck or small")
    config = base()
    config.dataset = {"name": "emodb", "folds": len(FOLDS)}
    config.num_classes = 7
    config.splits = fold_splits(preset["fold"], FOLDS)
    config.sample_rate = 16000  # that of the recordings
    config.t_c = 3.0
    config.feature.name = preset["feature"]
    config.best_metric = "test/accuracy"
    SIZES[preset["size"]](config)
    return config


def deck(config: ConfigDict) -> None:
    """The deck's width, for an accelerator."""
    config.model.name = "rann-3x4-6"
    config.dtype = "bfloat16"
    config.total_steps = 3000


def small(config: ConfigDict) -> None:
    """For two CPU cores; see `small_for_cpu`."""
    small_for_cpu(config, model="rann-3x4-1", total_steps=1000)


SIZES = {"deck": deck, "small": small}

"""What every experiment starts from: each key with its default and source.

Values that neither the deck nor the paper states are marked (ours).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def base() -> ConfigDict:
    """A complete config; an experiment's file changes what is its own."""
    return ConfigDict(
        {
            "seed": 0,
            # Sound: the source files, and where the prepared copy is kept ('' is ~/.cache/rann_jax).
            "data_dir": "",
            "prepared_dir": "",
            "dataset": {"name": "quickstart"},  # and the data set's own options
            # The prepared copy: "pcm" (int16) or "flac"; the share of files that may be unusable (ours);
            # processes that prepare, 0 is one a core; the longest recording taken, seconds (ours): each is in
            # memory as a whole.
            "prepare": {"storage": "pcm", "max_failed_share": 0.05, "workers": 0, "max_seconds": 600.0},
            "splits": {"train": "train", "test": "test"},  # several are joined as in 'fold2+fold3'
            # Order of training clips: "uniform"; "balanced", every class equally often (PANNs' scheme); or
            # "weighted", drawn with replacement, clips of rare classes more often (PaSST's scheme).
            "sampling": "uniform",
            "loader": {"num_threads": 4, "prefetch": 8},  # (ours) host threads, batches read ahead
            # Arrays held in parts by groups of `model` devices, by (pattern, axis number or "largest") pairs
            # as in rann_jax/sharding.py. Changes no result, and a run may go on with others.
            "sharding": {"model": 1, "rules": ()},
            # The task: "classification" (softmax) or "tagging" (sigmoid, several labels a clip).
            "task": "classification",
            "num_classes": 10,
            # The input: rate in Hz, crop length in seconds, the front end and its options.
            "sample_rate": 44100,
            "t_c": 4.0,
            "feature": {"name": "log_mel", "frames_per_second": 128, "n_bins": 128},
            # Augmentation of training, each with its options; {} is none. All take `probability` (of an
            # example) and `until` (the share of training after which it stops).
            "augment": {"mixup": {"alpha": 1.0}},
            # The network; a RANN's name repeats t_c. float32, or bfloat16 on accelerators.
            # remat computes each block again in the backward pass: less memory, more time, the same numbers.
            # blocks_per_stage: blocks in each of a RANN's five stages; None is the deck's 4. width: what the
            # channels of a PANN are divided by; None is the published 1 (a RANN's width is in its name).
            "model": {
                "name": "rann-4x4-1",
                "remat": False,
                "blocks_per_stage": placeholder(int),
                "width": placeholder(int),
            },
            "dtype": "float32",
            # Weights to begin with: a workdir, or a PyTorch file (rann_jax/pretrained.py); '' is none.
            "init_from": "",
            # Optimisation: Adam and one cycle (deck), peak 1e-3 and batch 32 (paper, AudioSet).
            "batch_size": 32,
            # The batch is computed in this many parts, one after another, in the memory of one, and gradients
            # are averaged. Equal to the whole batch but for BatchNorm, which sees one part at a time.
            "accumulate": 1,
            # BatchNorm takes statistics over each of this many equal parts of what is computed at once: 1 is
            # the batch over all devices; with as many as there are devices each has its own ("per replica").
            "batch_norm_groups": 1,
            "total_steps": 1000,
            # frozen: parameters that are not trained, by globs such as 'conv_block1'; 'trunk' is all but the
            # last layer. head_learning_rate: the last layer's own rate; None is learning_rate.
            "optimizer": {
                "schedule": "one_cycle",
                "learning_rate": 1e-3,
                "frozen": (),
                "head_learning_rate": placeholder(float),
            },
            "ema_decay": 0.999,  # the value of the code that the paper cites
            # How often, in steps. An evaluation whose best_metric (a score of eval.splits) exceeds all before
            # it is saved too, whatever save_every is, and kept beside the latest; results are the latest's.
            "log_every": 50,
            "eval_every": 500,
            "save_every": 500,
            "best_metric": "test/mAP",
            "eval": {"splits": ("test",), "batch_size": 32, "max_crops": 16},  # (ours)
        }
    )


def fold_splits(fold: int, folds: Sequence[int]) -> dict[str, str]:
    """`config.splits` of a cross-validation: tested on one fold, trained on all the others.

    >>> fold_splits(2, (1, 2, 3))
    {'train': 'fold1+fold3', 'test': 'fold2'}
    """
    return {"train": "+".join(f"fold{other}" for other in folds if other != fold), "test": f"fold{fold}"}


def hold_out(config: ConfigDict, valid: str) -> None:
    """Take the split `valid`, or several joined by +, out of training, score it beside the test split, and
    choose the best checkpoint by it; '' is none.

    Raises:
      ValueError: nothing is left to train on, or it has a split that is tested.

    >>> config = base()
    >>> config.splits = fold_splits(1, (1, 2, 3))
    >>> hold_out(config, "fold3")
    >>> config.splits.train, config.splits.valid, config.eval.splits, config.best_metric
    ('fold2', 'fold3', ('test', 'valid'), 'valid/mAP')
    """
    if not valid:
        return
    held = set(valid.split("+"))
    train = [name for name in config.splits.train.split("+") if name not in held]
    if not train or not held.isdisjoint(config.splits.test.split("+")):
        raise ValueError(f"preset valid={valid}: it must not be all of the training, nor what is tested")
    config.splits = {"train": "+".join(train), "test": config.splits.test, "valid": valid}
    config.eval.splits = ("test", "valid")
    config.best_metric = "valid/" + config.best_metric.removeprefix("test/")


def on_data_set(
    arg: str | None,
    dataset: dict[str, Any],
    *,
    num_classes: int,
    t_c: float,
    steps: tuple[int, int],
    folds: Sequence[int] = (),
    sample_rate: int = 44100,
    best_metric: str = "test/accuracy",
    small_top_db: float | None = None,
) -> ConfigDict:
    """An experiment of the usual form on one data set.

    Presets: size (deck, its width, for an accelerator; small, for two CPU cores), feature, valid (see
    `hold_out`, as in valid=fold5) and, of a data set in folds, fold, the one tested on.

    Args:
      arg: the presets given.
      dataset: name and options of the data set.
      num_classes: its classes.
      t_c: length of a crop, seconds.
      steps: of training, of size=deck and of size=small.
      folds: those of the data set; () where it has splits train and test.
      sample_rate: Hz.
      best_metric: what the best checkpoint is chosen by.
      small_top_db: see `small_for_cpu`.

    Raises:
      ValueError: a preset that there is not.
    """
    fold, there_are = ({"fold": folds[0]}, {"fold": folds}) if folds else ({}, {})
    choices = {"size": ("deck", "small"), **there_are}
    preset = parse_arg(arg, choices, size="deck", feature="log_mel", valid="", **fold)
    config = base()
    config.dataset = dataset
    if folds:
        config.splits = fold_splits(preset["fold"], folds)
    config.num_classes = num_classes
    config.sample_rate = sample_rate
    config.t_c = t_c
    config.feature.name = preset["feature"]
    config.best_metric = best_metric
    hold_out(config, preset["valid"])
    if preset["size"] == "small":
        model = f"rann-{t_c:g}x4-1"
        small_for_cpu(config, model=model, total_steps=steps[1], top_db=small_top_db)
    else:
        config.model.name = f"rann-{t_c:g}x4-6"
        config.dtype = "bfloat16"
        config.total_steps = steps[0]
    return config


def small_for_cpu(config: ConfigDict, *, model: str, total_steps: int, top_db: float | None = None) -> None:
    """For two CPU cores: a quarter of the pixels, a narrow network, mild augmentation (ours).

    With `top_db` a log-mel, alone or beside a wavegram, ends so many dB below its loudest: for clips with
    digital silence, which else spans most of the range in dB.

    The augmentation was chosen on splits of ESC-10's folds 3 to 5 (docs/results.md), and on no other data.
    """
    config.model.name = model
    if top_db is not None and config.feature.name.startswith("log_mel"):
        config.feature.top_db = top_db
    config.feature.frames_per_second = 64
    config.feature.n_bins = 64
    config.augment = {"gain": {}, "roll": {}, "white_noise": {"probability": 0.5}}
    config.batch_size = 16
    config.total_steps = total_steps
    config.eval_every = config.save_every = total_steps // 4


def parse_arg(
    arg: str | None, choices: Mapping[str, Collection[Any]] | None = None, /, **defaults: Any
) -> dict[str, Any]:
    """Presets of a config: `configs/esc50.py:fold=2,size=small` gives arg `fold=2,size=small`.

    Args:
      arg: comma-separated key=value, or None. A comma that no `key=` follows is part of the value, as in the
        name of a folder.
      choices: of the keys that take no other, the values there are.
      **defaults: every key there is; values are read in the type of the default.

    Raises:
      ValueError: an unknown key, a value of another type or one that there is not, named.
    """
    values = dict(defaults)
    for item in filter(None, re.split(r",+(?=\w+=|$)", arg or "")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise ValueError(f"no preset {key!r} in {arg!r}; there are {', '.join(defaults)}")
        try:
            values[key] = type(defaults[key])(value)
        except ValueError as error:
            raise ValueError(f"preset {key}={value!r} is not a {type(defaults[key]).__name__}") from error
    for key, there_are in (choices or {}).items():
        if values[key] not in there_are:
            named = ", ".join(filter(None, map(str, there_are)))  # '' is what a preset is when not given
            raise ValueError(f"preset {key}={values[key]} is none of {named}")
    return values

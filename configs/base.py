"""The base config that every experiment starts from: each key with its default and that value's source.

Values that neither the deck nor the paper states are marked (ours).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def base() -> ConfigDict:
    """Return a complete config, of which an experiment's file changes some keys."""
    return ConfigDict(
        {
            "seed": 0,
            # data_dir: folder of the source files ('' means to download them), or a finished copy that was
            # prepared from them. prepared_dir: folder of the prepared copies; '' means ~/.cache/rann_jax.
            "data_dir": "",
            "prepared_dir": "",
            "dataset": {"name": "quickstart"},  # plus the data set's own options
            # The prepared copy. storage: "pcm" (int16) or "flac". max_failed_share: share of a split's files
            # that may be unusable (ours); above 0, one file always may. workers: number of preparing
            # processes; 0 means one per core. max_seconds: longer recordings are rejected (ours), because
            # each is held in memory as a whole.
            "prepare": {"storage": "pcm", "max_failed_share": 0.05, "workers": 0, "max_seconds": 600.0},
            "splits": {"train": "train", "test": "test"},  # join several with +, as in 'fold2+fold3'
            # Order of training clips: "uniform"; "balanced", every class equally often (PANNs' scheme); or
            # "weighted", drawn with replacement, clips of rare classes more often (PaSST's scheme).
            "sampling": "uniform",
            # (ours) Threads of a process that read, each a batch at a time, and batches read ahead. None: 4
            # threads per device of the process, at most one per core; 8 batches, or one per thread if more.
            "loader": {"num_threads": placeholder(int), "prefetch": placeholder(int)},
            # Sharding of the state. Each group of `model` devices shards the arrays that the rules match; a
            # rule is a pair (pattern, axis number or "largest"), see rann_jax/devices/sharding.py. This
            # changes no result, and a run may resume with other values.
            "sharding": {"model": 1, "rules": ()},
            # The task: "classification" (softmax) or "tagging" (sigmoid, several labels per clip).
            "task": "classification",
            "num_classes": 10,
            # The input: sample rate in Hz, crop length in seconds, the front end and its options. n_bins: the
            # image's rows, for all features alike (ours); chroma then divides the octave into as many.
            "sample_rate": 44100,
            "t_c": 4.0,
            "feature": {"name": "log_mel", "frames_per_second": 128.0, "n_bins": 128},
            # Training augmentations, each with its options; {} means none. Every one takes `probability` (of
            # applying it to an example) and `until` (the share of training after which it stops).
            "augment": {"mixup": {"alpha": 1.0}},
            # The network. name: the first number in a RANN's name must equal t_c. remat: recompute each block
            # in the backward pass, for less memory, more time and the same numbers. blocks_per_stage: blocks
            # in each of a RANN's five stages; None means the deck's 4. width: divisor of a PANN's channels;
            # None means the published 1 (a RANN's width is in its name).
            "model": {
                "name": "rann-4x4-1",
                "remat": False,
                "blocks_per_stage": placeholder(int),
                "width": placeholder(int),
            },
            # The type of the network's arithmetic: "float32" or, for accelerators, "bfloat16". The front end
            # and the last layers always compute in float32. In convolutions, accelerators round the factors
            # of float32 products, unless --jax_default_matmul_precision=highest is given.
            "dtype": "float32",
            # Initial weights: a workdir or a PyTorch file (rann_jax/training/pretrained.py); '' means random.
            "init_from": "",
            # Optimisation: Adam and one cycle (deck), peak 1e-3 and batch 32 (paper, AudioSet).
            "batch_size": 32,
            # Gradient accumulation: compute the batch in this many parts, one after another, and average the
            # gradients. This needs the memory of one part only. The result equals that of the whole batch
            # except for BatchNorm, which sees one part at a time. Several devices sum their gradients once a
            # part, not once a step: rann_jax.compile prints what is sent.
            "accumulate": 1,
            # BatchNorm divides the batch (with accumulate, each part of it) into this many equal groups, each
            # with its own statistics. 1 means statistics over all devices; as many groups as devices mean
            # statistics per device.
            "batch_norm_groups": 1,
            "total_steps": 1000,
            # frozen: globs of parameters that are not trained, such as 'conv_block1'; 'trunk' means all but
            # the last layer. head_learning_rate: rate of the last layer; None means learning_rate.
            "optimizer": {
                "schedule": "one_cycle",
                "learning_rate": 1e-3,
                "frozen": (),
                "head_learning_rate": placeholder(float),
            },
            "ema_decay": 0.999,  # decay of the weights' moving average; from the code that the paper cites
            # Intervals in steps. The best checkpoint is kept beside the latest: whenever best_metric, a score
            # of eval.splits, exceeds all before it, the state is saved regardless of save_every. Results are
            # those of the latest checkpoint.
            "log_every": 50,
            "eval_every": 500,
            "save_every": 500,
            "best_metric": "test/mAP",
            "eval": {"splits": ("test",), "batch_size": 32, "max_crops": 16},  # (ours)
        }
    )


def fold_splits(fold: int, folds: Sequence[int]) -> dict[str, str]:
    """Return `config.splits` of a cross-validation: test on one fold, train on all the others.

    >>> fold_splits(2, (1, 2, 3))
    {'train': 'fold1+fold3', 'test': 'fold2'}
    """
    return {"train": "+".join(f"fold{other}" for other in folds if other != fold), "test": f"fold{fold}"}


def hold_out(config: ConfigDict, valid: str) -> None:
    """Hold the split `valid` out of training, score it too, and choose the best checkpoint by it.

    `valid` may join several splits with +; '' changes nothing.

    Raises:
      ValueError: nothing is left to train on, or `valid` includes a test split.

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
        raise ValueError(
            f"preset valid={valid} would hold out the test split or all training splits: name another split"
        )
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
    """Return an experiment of the usual form on one data set.

    Presets: size (deck: full width, for an accelerator; small: for two CPU cores), feature, valid (a
    split held out of training, as in valid=fold5; see `hold_out`) and, for a data set in folds, fold (the one
    to test on).

    Args:
      arg: the given presets.
      dataset: name and options of the data set.
      num_classes: number of classes.
      t_c: length of a crop, seconds.
      steps: training steps for size=deck and for size=small.
      folds: the folds of the data set; () if it has splits train and test.
      sample_rate: Hz.
      best_metric: metric by which the best checkpoint is chosen.
      small_top_db: see `small_for_cpu`.

    Raises:
      ValueError: there is no such preset, or no such value of one.
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
    """Adapt a config to two CPU cores: a quarter of the pixels, a narrow network, mild augmentation (ours).

    With `top_db`, a log-mel (alone or beside a wavegram) is clipped this many dB below its maximum. This is
    for clips with digital silence, which would otherwise span most of the range in dB.

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
    """Return the presets in `arg`: `configs/esc50.py:fold=2,size=small` gives arg `fold=2,size=small`.

    Args:
      arg: comma-separated key=value, or None. A comma without a `key=` after it is part of the value, as in
        the name of a folder.
      choices: the valid values of each key that takes only some values.
      **defaults: every valid key with its default; values are parsed to the type of the default.

    Raises:
      ValueError: a key is unknown, or a value has the wrong type or is not valid; the message names it.
    """
    values = dict(defaults)
    for item in filter(None, re.split(r",+(?=\w+=|$)", arg or "")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise ValueError(f"no preset {key!r} in {arg!r}: use one of {', '.join(defaults)}")
        try:
            values[key] = type(defaults[key])(value)
        except ValueError as error:
            raise ValueError(
                f"preset {key}={value!r} must be of type {type(defaults[key]).__name__}"
            ) from error
    for key, there_are in (choices or {}).items():
        if values[key] not in there_are:
            named = ", ".join(filter(None, map(str, there_are)))  # '' stands for a preset that is not given
            raise ValueError(f"preset {key}={values[key]} must be one of {named}")
    return values

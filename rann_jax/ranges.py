"""Valid values of single keys of a config. Others would fail in the middle of a run, or be wrong silently."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from input_pipeline.sampling import SAMPLINGS
from rann_jax.errors import ConfigError
from rann_jax.tasks import MAX_CLASSES


class Range(NamedTuple):
    """Valid values, and the words that describe them."""

    told: str
    holds: Callable[[Any], bool]


def whole(least: int, most: float = math.inf) -> Range:
    """Return the range of whole numbers from `least` to `most`."""
    told = f"of at least {least}" if most == math.inf else f"between {least} and {most}"
    return Range(f"a whole number {told}", lambda value: isinstance(value, int) and least <= value <= most)


SHARE = Range("a number between 0 and 1", lambda value: isinstance(value, int | float) and 0 <= value <= 1)
BELOW_ONE = Range(
    "a number of at least 0 and below 1", lambda value: isinstance(value, int | float) and 0 <= value < 1
)
POSITIVE = Range("a positive number", lambda value: isinstance(value, int | float) and 0 < value < math.inf)
TEXT = Range("text", lambda value: isinstance(value, str))

# Augmentations and front ends check their own options when they are built.
RANGES = {
    "seed": whole(0, 2**32 - 1),  # the state holds it as uint32
    "data_dir": TEXT,
    "prepared_dir": TEXT,
    "dataset.name": TEXT,
    "prepare.workers": whole(0),
    "prepare.max_seconds": POSITIVE,
    "prepare.max_failed_share": SHARE,
    "sampling": Range(f"one of {', '.join(SAMPLINGS)}", SAMPLINGS.__contains__),
    "loader.num_threads": whole(0),
    "loader.prefetch": whole(0),
    "sharding.model": whole(1),
    "num_classes": whole(1, MAX_CLASSES),
    "sample_rate": whole(1),
    "t_c": POSITIVE,
    "model.name": TEXT,
    "model.blocks_per_stage": whole(1),
    "model.width": whole(1),
    "init_from": TEXT,
    "batch_size": whole(1),
    "accumulate": whole(1),
    "batch_norm_groups": whole(1),
    "total_steps": whole(1),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.head_learning_rate": POSITIVE,
    "optimizer.div_factor": POSITIVE,
    "optimizer.final_div_factor": POSITIVE,
    "optimizer.b1": BELOW_ONE,
    "optimizer.base_momentum": BELOW_ONE,
    "optimizer.max_momentum": BELOW_ONE,
    "optimizer.b2": BELOW_ONE,
    "optimizer.eps": POSITIVE,
    "ema_decay": SHARE,
    "log_every": whole(1),
    "eval_every": whole(1),
    "save_every": whole(1),
    "eval.batch_size": whole(1),
    "eval.max_crops": whole(1),
}

_ABSENT = object()

# None means a default there, or the same as ''.
MAY_BE_NONE = (
    "data_dir",
    "prepared_dir",
    "loader.num_threads",
    "loader.prefetch",
    "model.blocks_per_stage",
    "model.width",
    "init_from",
    "optimizer.head_learning_rate",
)


def check_ranges(config: ConfigDict) -> None:
    """Raise ConfigError if a value is not valid; ignore keys that are absent."""
    for key, allowed in RANGES.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, ConfigDict) else _ABSENT
        if value is _ABSENT or (value is None and key in MAY_BE_NONE):
            continue
        if not allowed.holds(value):
            raise ConfigError(f"config.{key} must be {allowed.told}, not {value!r}")

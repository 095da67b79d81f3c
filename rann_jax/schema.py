"""The keys of a config: which values each may have, and what it means that an earlier config lacks one.

configs/base.py explains the keys and gives them their defaults. Options of front ends, networks, optimiser,
augmentations and data sets are checked by those who take them; here are only their values that would
otherwise fail in the middle of a run, or be wrong silently.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from input_pipeline.sampling import SAMPLINGS
from rann_jax.errors import ConfigError
from rann_jax.options import did_you_mean
from rann_jax.tasks import MAX_CLASSES, TASKS

DTYPES = ("float32", "bfloat16")  # of the network's arithmetic


class Range(NamedTuple):
    """Valid values, and the words that describe them."""

    told: str
    holds: Callable[[Any], bool]


def whole(least: int, most: float = math.inf) -> Range:
    """Return the range of whole numbers from `least` to `most`."""
    told = f"of at least {least}" if most == math.inf else f"between {least} and {most}"
    return Range(f"a whole number {told}", lambda value: isinstance(value, int) and least <= value <= most)


def one_of(values: Sequence[str]) -> Range:
    """Return the range of some words."""
    return Range(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


SHARE = Range("a number between 0 and 1", lambda value: isinstance(value, int | float) and 0 <= value <= 1)
BELOW_ONE = Range(
    "a number of at least 0 and below 1", lambda value: isinstance(value, int | float) and 0 <= value < 1
)
POSITIVE = Range("a positive number", lambda value: isinstance(value, int | float) and 0 < value < math.inf)
TEXT = Range("text", lambda value: isinstance(value, str))
ANY = Range("anything", lambda value: True)  # whoever reads the value checks it

REQUIRED, OPTIONAL = object(), object()


class Key(NamedTuple):
    """What a config may say of one key.

    Attributes:
      allowed: the valid values.
      none: whether None is valid too: it means a default there, or the same as ''.
      absent: REQUIRED, if configs of all versions have the key; OPTIONAL, if whoever takes the options of its
        section has a default, or if no result depends on it; or the value that matches what earlier versions
        did, which lack the key.
    """

    allowed: Range = ANY
    none: bool = False
    absent: Any = REQUIRED


def optional(allowed: Range = ANY) -> Key:
    """Return a key that may be absent."""
    return Key(allowed, absent=OPTIONAL)


SCHEMA = {
    "seed": Key(whole(0, 2**32 - 1)),  # the state holds it as uint32
    "data_dir": Key(TEXT, none=True),
    "prepared_dir": Key(TEXT, none=True),
    "dataset.name": Key(TEXT),
    "dataset.folds": Key(absent=5),
    "dataset.filename_column": Key(absent="filename"),
    "prepare.storage": optional(),
    "prepare.max_failed_share": optional(SHARE),
    "prepare.workers": optional(whole(0)),
    "prepare.max_seconds": optional(POSITIVE),
    "splits.train": Key(),
    "sampling": Key(one_of(SAMPLINGS), absent="uniform"),
    "loader.num_threads": Key(whole(0), none=True),
    "loader.prefetch": Key(whole(0), none=True),
    "sharding.model": optional(whole(1)),
    "sharding.rules": optional(),
    "task": Key(one_of(TASKS)),
    "num_classes": Key(whole(1, MAX_CLASSES)),
    "sample_rate": Key(whole(1)),
    "t_c": Key(POSITIVE),
    "feature.name": Key(),
    "augment": Key(),
    "model.name": Key(TEXT),
    "model.remat": Key(absent=False),
    "model.blocks_per_stage": Key(whole(1), none=True, absent=None),
    "model.width": Key(whole(1), none=True, absent=None),
    "dtype": Key(one_of(DTYPES)),
    "init_from": Key(TEXT, none=True, absent=""),
    "batch_size": Key(whole(1)),
    "accumulate": Key(whole(1), absent=1),
    "batch_norm_groups": Key(whole(1), absent=1),
    "total_steps": Key(whole(1)),
    "optimizer": Key(),
    "optimizer.learning_rate": optional(POSITIVE),
    "optimizer.head_learning_rate": Key(POSITIVE, none=True, absent=None),
    "optimizer.frozen": Key(absent=[]),
    "optimizer.div_factor": optional(POSITIVE),
    "optimizer.final_div_factor": optional(POSITIVE),
    "optimizer.b1": optional(BELOW_ONE),
    "optimizer.base_momentum": optional(BELOW_ONE),
    "optimizer.max_momentum": optional(BELOW_ONE),
    "optimizer.b2": optional(BELOW_ONE),
    "optimizer.eps": optional(POSITIVE),
    "ema_decay": Key(SHARE),
    "log_every": Key(whole(1)),
    "eval_every": Key(whole(1)),
    "save_every": Key(whole(1)),
    "best_metric": Key(),
    "eval.splits": Key(),
    "eval.batch_size": Key(whole(1)),
    "eval.max_crops": Key(whole(1)),
}
SECTIONS = (
    "dataset", "prepare", "splits", "loader", "sharding", "feature", "augment", "model", "optimizer", "eval",
)  # fmt: skip
CLOSED = ("prepare", "loader", "sharding", "eval")  # the sections that have no keys but those above
# Sections that need not list options left at their defaults. A flag may set any option in them: the code that
# takes the section refuses unknown options and lists the known ones. `model` lists all of its options.
OPEN = ("augment", "dataset", "feature", "optimizer", "splits")

# The values of absent keys that match what earlier versions did. Any other absent key differs from a present
# one, even if that is empty, zero or false.
EARLIER = {name: key.absent for name, key in SCHEMA.items() if key.absent not in (REQUIRED, OPTIONAL)}

_ABSENT = object()


def check_known(config: ConfigDict) -> None:
    """Raise ConfigError if a config has a key that nothing reads, such as a misspelt one."""
    for section, key in _unknown(config):
        raise ConfigError(
            f"config.{_dotted(section, key)}: there is no such key; configs/base.py lists them"
            + did_you_mean(key, _names(section))
        )


def known(config: ConfigDict) -> ConfigDict:
    """Return a config without the keys that nothing reads, which configs of earlier runs may have."""
    kept = ConfigDict(config)
    for section, key in _unknown(config):
        del (kept[section] if section else kept)[key]
    return kept


def check_complete(config: ConfigDict) -> None:
    """Raise ConfigError if a config lacks a key that those of earlier versions had too."""
    for name in SECTIONS:
        if name in config and not isinstance(config[name], ConfigDict):
            raise ConfigError(f"config.{name}={config[name]!r} must be a dict, as in configs/base.py")
    for name, key in SCHEMA.items():
        if key.absent is REQUIRED and _value(config, name) is _ABSENT:
            raise ConfigError(
                f"config.{name} is missing: a config starts from configs/base.py, which has every key"
            )


def check_values(config: ConfigDict) -> None:
    """Raise ConfigError if a value is not valid; ignore keys that are absent."""
    for name, key in SCHEMA.items():
        value = _value(config, name)
        if value is _ABSENT or (value is None and key.none):
            continue
        if not key.allowed.holds(value):
            raise ConfigError(f"config.{name} must be {key.allowed.told}, not {value!r}")


def _value(config: ConfigDict, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, ConfigDict) else _ABSENT
    return value


def _names(section: str) -> list[str]:
    """Return the keys of a closed section, or with '' those of the config itself."""
    if section:
        return [name.partition(".")[2] for name in SCHEMA if name.startswith(f"{section}.")]
    return list(dict.fromkeys(name.partition(".")[0] for name in SCHEMA))


def _unknown(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Yield the sections and names of keys that nothing reads."""
    for section in ("", *CLOSED):
        there = config.get(section) if section else config
        names = _names(section)
        if isinstance(there, ConfigDict):
            yield from ((section, key) for key in there if key not in names)


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key

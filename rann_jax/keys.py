"""The keys that a config has. configs/base.py explains each of them and gives it a default."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from rann_jax.errors import ConfigError
from rann_jax.options import did_you_mean

# Each section with its keys; '' is the config itself. The other sections hold the options of a builder, which
# refuses unknown ones.
# fmt: off
KEYS = {
    "": [
        "seed", "data_dir", "prepared_dir", "dataset", "prepare", "splits", "sampling", "loader", "sharding",
        "task", "num_classes", "sample_rate", "t_c", "feature", "augment", "model", "dtype", "init_from",
        "batch_size", "accumulate", "batch_norm_groups", "total_steps", "optimizer", "ema_decay",
        "log_every", "eval_every", "save_every", "best_metric", "eval",
    ],
    "loader": ["num_threads", "prefetch"],
    "sharding": ["model", "rules"],
    "eval": ["splits", "batch_size", "max_crops"],
    "prepare": ["storage", "max_failed_share", "workers", "max_seconds"],
}
SECTIONS = [
    "dataset", "prepare", "splits", "loader", "sharding", "feature", "augment", "model", "optimizer", "eval",
]
# fmt: on

# Keys that configs of earlier versions lack, with the values that match what those versions did. Any other
# absent key differs from a present one, even if that is empty, zero or false.
ADDED = {
    "sampling": "uniform",
    "dataset.folds": 5,
    "dataset.filename_column": "filename",
    "model.remat": False,
    "model.blocks_per_stage": None,
    "model.width": None,
    "init_from": "",
    "accumulate": 1,
    "batch_norm_groups": 1,
    "optimizer.frozen": [],
    "optimizer.head_learning_rate": None,
}
# Sections that they lack as a whole or in part, which change no result.
NEWER_SECTIONS = ("prepare", "sharding")


def check_known(config: ConfigDict) -> None:
    """Raise ConfigError if a config has a key that nothing reads, such as a misspelt one."""
    for section, key in _unknown(config):
        raise ConfigError(
            f"config.{_dotted(section, key)}: there is no such key; configs/base.py lists them"
            + did_you_mean(key, KEYS[section])
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
    for key in _required():
        section, _, name = key.rpartition(".")
        if name not in _keys(config, section):
            raise ConfigError(
                f"config.{key} is missing: a config starts from configs/base.py, which has every key"
            )


def _unknown(config: ConfigDict) -> list[tuple[str, str]]:
    """Return the sections and names of keys that nothing reads."""
    return [
        (section, key) for section, keys in KEYS.items() for key in _keys(config, section) if key not in keys
    ]


def _required() -> Iterator[str]:
    for section, keys in KEYS.items():
        for key in keys:
            if not {section, key}.intersection(NEWER_SECTIONS) and key not in ADDED:
                yield _dotted(section, key)
    yield from ("dataset.name", "splits.train", "feature.name", "model.name")


def _keys(config: ConfigDict, section: str) -> list[str]:
    there = config.get(section) if section else config
    return list(there) if isinstance(there, ConfigDict) else []


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key

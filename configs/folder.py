"""Your own recordings: a folder of sound files, one sub-folder a class, or a csv of names and labels.

    python -m rann_jax.main --config configs/folder.py:data=DIR --workdir runs/mine

Classes, splits and task are looked up in the folder: where it has no split of its own, the data is dealt
into five folds by class, and fold 5 is tested on; where a file has several labels, the task is tagging.
Without data=, the preset num_classes and --config.data_dir, --config.splits and --config.task say it.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from configs.base import base, parse_arg
from input_pipeline import DataError, survey

TEST_SPLITS = ("test", "eval", "validation", "valid", "val", "dev")


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: data (the folder), or num_classes; feature, t_c (seconds), width."""
    preset = parse_arg(arg, data="", num_classes=10, feature="log_mel", t_c=4.0, width=1)
    config = base()
    config.num_classes = preset["num_classes"]
    own_sounds(config, preset["data"])
    config.t_c = preset["t_c"]
    config.feature.name = preset["feature"]
    config.model.name = f"rann-{preset['t_c']:g}x4-{preset['width']}"
    config.total_steps = 2000
    return config


def own_sounds(config: ConfigDict, data: str) -> None:
    """Take data set, splits, task and number of classes from a folder; '' is one to be named later.

    Raises:
      ValueError: the folder cannot be used.
    """
    config.dataset = {"name": "folder", "csv": "", "label_column": "", "split_column": ""}
    config.splits = train_and_test([f"fold{k}" for k in range(1, 6)])
    if not data:
        return
    try:
        found = survey(data_dir=data, **config.dataset.to_dict())
    except DataError as error:
        raise ValueError(str(error)) from error
    config.data_dir = data
    config.num_classes = len(found.labels)
    config.task = "tagging" if found.several_labels else "classification"
    config.splits = train_and_test(found.splits)


def train_and_test(splits: Sequence[str]) -> dict[str, str]:
    """Which splits are trained and tested on: those named so, else the last one is tested on.

    >>> train_and_test(["fold1", "fold2", "fold3"])
    {'train': 'fold1+fold2', 'test': 'fold3'}
    >>> train_and_test(["test", "train", "val"])
    {'train': 'train', 'test': 'test'}
    """
    test = next((name for name in TEST_SPLITS if name in splits), splits[-1])
    others = [name for name in splits if name != test]
    if not others:
        raise ValueError(f"config.data_dir: the only split is {test!r}: one to train on is missing")
    return {"train": "train" if "train" in others else "+".join(others), "test": test}

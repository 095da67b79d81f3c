"""Your own recordings: a folder of sound files, one sub-folder a class, or a csv of names and labels.

    python -m rann_jax.main --config configs/folder.py:num_classes=5 --config.data_dir=DIR --workdir runs/mine

Without a split of its own the data is dealt into five folds by class, and fold 5 is tested on. With a csv,
set --config.dataset.csv=labels.csv, and --config.task=tagging where a file has several labels.
"""

from ml_collections import ConfigDict

from configs.base import base, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: num_classes, feature, t_c (seconds), width."""
    preset = parse_arg(arg, num_classes=10, feature="log_mel", t_c=4.0, width=1)
    config = base()
    config.dataset = {"name": "folder", "csv": "", "label_column": "", "split_column": ""}
    config.splits = {"train": "fold1+fold2+fold3+fold4", "test": "fold5"}
    config.num_classes = preset["num_classes"]
    config.t_c = preset["t_c"]
    config.feature.name = preset["feature"]
    config.model.name = f"rann-{preset['t_c']:g}x4-{preset['width']}"
    config.total_steps = 2000
    return config

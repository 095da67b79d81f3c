"""Your own recordings: a folder of sound files with one sub-folder per class, or a csv of names and labels.

    python -m rann_jax.main --config configs/folder.py:data=DIR --workdir runs/mine
    python -m rann_jax.main --config configs/folder.py:data=DIR,size=small --workdir runs/mine
    python -m rann_jax.main --config configs/folder.py:data=DIR,csv=labels.csv,label_column=bird --workdir W

The second command is for two CPU cores. Classes, splits and task are read from the folder and printed. If it
has no split of its own, the data is dealt into five folds by class, and fold 5 is the test split; fold=
chooses another, and rann_jax.crossval tests on each. If any file has several labels, the task is tagging.
Without data=, set the preset num_classes, --config.data_dir, --config.splits and --config.task.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.base import base, hold_out, parse_arg, small_for_cpu
from input_pipeline import DataError, survey
from input_pipeline.datasets.folder import Folder
from input_pipeline.datasets.roles import LAST, train_and_test
from input_pipeline.errors import quoted
from input_pipeline.folder_survey import Survey

SIZES = ("full", "small")


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: data (the folder), or num_classes; size (full, or small: a quarter of the
    pixels and fewer steps, for two CPU cores); feature, t_c (seconds), width, fold (the number of the fold to
    test on; the last by default), valid (a split held out of training, as in valid=fold4; see `hold_out`);
    options of `own_sounds`.
    """
    own = {"num_classes": 0, "feature": "log_mel", "t_c": 4.0, "width": 1, "fold": LAST, "valid": ""}
    preset = parse_arg(arg, {"size": SIZES}, data="", size="full", **own, **Folder.OPTIONS)
    config = base()
    if preset["num_classes"]:
        if preset["data"]:
            raise ValueError(
                f"preset num_classes={preset['num_classes']}: the folder sets the number of classes: leave "
                "this preset out"
            )
        config.num_classes = preset["num_classes"]
    own_sounds(config, preset["data"], preset, fold=preset["fold"], valid=preset["valid"])
    config.t_c = preset["t_c"]
    config.feature.name = preset["feature"]
    config.model.name = f"rann-{preset['t_c']:g}x4-{preset['width']}"
    config.total_steps = 2000
    if preset["size"] == "small":
        small_for_cpu(config, model=config.model.name, total_steps=600)
    return config


def own_sounds(
    config: ConfigDict,
    data: str,
    options: Mapping[str, Any] = Folder.OPTIONS,
    *,
    fold: int = LAST,
    valid: str = "",
) -> None:
    """Set data set, splits, task and number of classes from a folder, and print them to stderr.

    Args:
      config: the config to change.
      data: the folder; '' if it is to be named later.
      options: presets, of which the data set's own are used: csv, the table if there are several;
        filename_column, label_column and split_column, its columns; folds, the number of folds into which
        clips without a split are dealt. If a folder is given, overrides of config.dataset come too late.
      fold: number of the fold to test on.
      valid: a split to hold out of training; see `hold_out`.

    Raises:
      ValueError: the folder cannot be used, or the split cannot be held out.
    """
    config.dataset = {"name": "folder", **{key: options[key] for key in Folder.OPTIONS}}
    if not data:
        folds = options["folds"]
        config.splits = train_and_test([f"fold{k + 1}" for k in range(folds)], f"preset folds={folds}", fold)
        hold_out(config, valid)
        return
    try:
        found = survey(data_dir=data, **config.dataset.to_dict())
    except DataError as error:
        raise ValueError(str(error)) from error
    config.data_dir = data
    config.num_classes = len(found.labels)
    config.task = "tagging" if found.several_labels else "classification"
    config.splits = train_and_test(found.splits, found.splits_from, fold)
    if unknown := set(filter(None, valid.split("+"))) - set(found.splits):
        raise ValueError(
            f"preset valid={valid}: no split {min(unknown)!r}: choose from {', '.join(found.splits)}"
        )
    hold_out(config, valid)
    for line in _told(data, found, config.splits.to_dict(), config.best_metric):
        print(line, file=sys.stderr)


def _told(data: str, found: Survey, splits: Mapping[str, str], best_metric: str) -> Iterator[str]:
    """Yield what a user should see before anything is trained."""
    yield f"note: {data}: {len(found.labels)} classes: {quoted(found.labels)}"
    chosen = {use: joined.split("+") for use, joined in splits.items()}
    others = [split for split in found.splits if split not in itertools.chain(*chosen.values())]
    left = f"; not used: {', '.join(others)}" if others else ""
    validated = f", validated on {splits['valid']}" if "valid" in splits else ""
    yield (
        f"note: {data}: trained on {splits['train']}, tested on {splits['test']}{validated}{left} "
        f"(splits from {found.splits_from})"
    )
    advice = "" if validated else "; to choose it by a held-out split, add the preset valid=SPLIT"
    yield f"note: {data}: the best checkpoint is chosen by {best_metric}{advice}"
    for use, names in chosen.items():
        there = frozenset().union(*(found.labels_of[split] for split in names))
        if absent := [label for label in found.labels if label not in there]:
            yield (
                f"warning: {data}: {len(absent)} of {len(found.labels)} classes have no clip in the "
                f"{use} split, {splits[use]}: {quoted(absent)}"
            )

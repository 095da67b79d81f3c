"""Finished copies that `config.data_dir` names, such as one that was moved to the disk of another host.

A copy records what it was made of and how. So it is used without its source files, which may be millions and
would be looked at whenever a run starts.
"""

import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from input_pipeline.errors import DataError, shortened_reason
from input_pipeline.plan import complete_options, data_set
from input_pipeline.prepared import Prepared, damaged


def named_copy(data_dir: str) -> Path | None:
    """Return the folder of the copy that `data_dir` names, or None if it names source files or nothing."""
    folder = Path(data_dir).expanduser().absolute()
    described = any((folder / name).is_file() for name in ("dataset_info.json", "features.json"))
    # Other tools write files with these names beside sounds.
    return folder if data_dir and described and any(folder.glob("*.manifest.jsonl")) else None


def record(folder: Path) -> dict[str, Any]:
    """Return what a copy records of itself; `AudioBuilder` says what, and `name` and `version` are added.

    Raises:
      DataError: it is damaged.
    """
    try:
        information = json.loads((folder / "dataset_info.json").read_text())
        made: dict[str, Any] = json.loads((folder / "metadata.json").read_text())
        made["options"] = dict(made["options"])
        made["sample_rate"] = operator.index(made["sample_rate"])
        return made | {"name": information["name"], "version": information["version"]}
    except FileNotFoundError as error:
        raise damaged(folder, f"it lacks {Path(error.filename).name}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = shortened_reason(error, 100)
        raise damaged(folder, f"dataset_info.json or metadata.json cannot be read: {reason}") from error


def open_copy(name: str, folder: Path, options: Mapping[str, Any], **wanted: Any) -> Prepared:
    """Open a copy that was made as these arguments say.

    Args:
      name: a name in `datasets.REGISTRY`.
      folder: folder of the copy.
      options: the data set's own options.
      **wanted: other values by which it must have been made: sample_rate (Hz), max_seconds.

    Raises:
      DataError: it was made otherwise, or is damaged.
    """
    builder_class, made = data_set(name), record(folder)
    copy = f"config.data_dir: the prepared copy {folder}"
    if made["name"] != builder_class.name:
        raise DataError(
            f"{copy} is of data set {made['name']!r}, but config.dataset.name={name!r}: make them equal, or "
            "name the source files instead"
        )
    if made["version"] != str(builder_class.VERSION):
        raise DataError(
            f"{copy} is of version {made['version']} of data set {name!r}, which is now "
            f"{builder_class.VERSION}: name the source files instead, to prepare them anew"
        )
    # Copies of earlier versions lack max_seconds, and options that were added later.
    now = {f"dataset.{key}": value for key, value in complete_options(name, builder_class, options).items()}
    then = {f"dataset.{key}": value for key, value in {**builder_class.OPTIONS, **made["options"]}.items()}
    for key, config_key in (("sample_rate", "sample_rate"), ("max_seconds", "prepare.max_seconds")):
        if key in wanted:
            now[config_key], then[config_key] = wanted[key], made.get(key, wanted[key])
    for key, value in now.items():
        if then[key] != value:
            raise DataError(
                f"{copy} was made with config.{key}={then[key]!r}, but it is {value!r} now: make them equal, "
                "or name the source files instead"
            )
    return Prepared.open(name, folder, made["sample_rate"])

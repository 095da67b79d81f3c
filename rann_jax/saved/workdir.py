"""The workdir of a run and its config.json; see predictions, checkpoint and writers for the other files."""

import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from rann_jax.errors import ConfigError
from rann_jax.schema import EARLIER, check_complete, known

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"

# These keys change no result: where the data is, how it is stored and read, how arrays are sharded, how often
# checkpoints are saved. A run may resume with other values.
NO_RESULT = ("data_dir", "prepared_dir", "prepare", "loader", "sharding", "save_every")
# What is scored, how and when: for a trained run these may take any value.
SCORING = ("eval", "eval_every", "log_every")


@contextmanager
def replace_atomically(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error; text is UTF-8.

    Raises:
      OSError: naming `path`, not the temporary file; if the name is too long, before the block runs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.lstat()  # raises if the name is too long
    # Its name is short, so that it fits wherever the name of `path` does.
    temporary = path.with_name(f".unfinished.{uuid.uuid4().hex}")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a crash of the machine could keep the renaming and lose the content
        temporary.replace(path)
    except OSError as error:
        unnamed = error.errno is not None and error.filename is None  # as when the disk is full
        if unnamed or (error.filename and os.fspath(error.filename) == str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: Path, option: str = "--workdir") -> None:
    """Raise ConfigError unless an option names a writable folder, or one that can be created."""
    if re.match(r"\w{2,}:/", str(folder)):  # a Path keeps one of the two slashes
        raise ConfigError(
            f"{option}={folder} is an address, not a folder: mount the bucket and name its folder"
        )
    path = folder.absolute()
    there = next(above for above in (path, *path.parents) if above.exists())
    if not there.is_dir():
        raise ConfigError(f"{option}={folder}: {there} is a file: name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option}={folder}: {there} cannot be written to: name another folder, or change its permissions"
        )


def check_trainable(workdir: Path, option: str = "--workdir") -> None:
    """Raise ConfigError unless `check_folder` passes and checkpoints can be written to a workdir.

    Orbax uses the whole path as a glob pattern when it joins the parts of a checkpoint. If the path had
    brackets, it would find no parts, and keep a checkpoint without arrays. It takes only paths in UTF-8.
    """
    check_folder(workdir, option)
    if (name := str(workdir.absolute())) != name.encode(errors="replace").decode():
        raise ConfigError(
            f"{option}={workdir}: checkpoints cannot be written to a path that is not UTF-8: name another "
            "folder, or set the locale to one with UTF-8"
        )
    if wrong := re.search(r"[\[\]\\]", str(workdir.absolute())):
        raise ConfigError(
            f"{option}={workdir}: checkpoints cannot be written to a path that contains {wrong[0]!r}: name "
            "another folder"
        )


def check_unused(workdir: Path, option: str = "--workdir") -> None:
    """Raise ConfigError unless `check_trainable` passes and a workdir holds no run."""
    check_trainable(workdir, option)
    if (workdir / CONFIG_FILE).exists() or has_checkpoint(workdir):
        raise ConfigError(f"{option}: {workdir} holds a run already: name another folder")


def is_workdir(folder: Path) -> bool:
    """Return whether a folder is the workdir of a model, complete or not: it has a folder for checkpoints."""
    return (folder / CHECKPOINTS).is_dir()


def has_checkpoint(workdir: Path) -> bool:
    """Return whether a workdir holds a complete checkpoint, without creating or opening anything."""
    return is_workdir(workdir) and any(path.name.isdecimal() for path in (workdir / CHECKPOINTS).iterdir())


def holds_run(workdir: Path) -> bool:
    """Return whether a workdir holds a trained run: a checkpoint, or predictions kept without one.

    A start that failed before its first checkpoint may leave a config.json but nothing to resume from.
    """
    return has_checkpoint(workdir) or any((workdir / PREDICTIONS).glob("*.npz"))


def check_distinct(runs: Sequence[str | Path]) -> None:
    """Raise ConfigError if two of the paths, perhaps through links, are of the same run."""
    named: dict[Path, str | Path] = {}
    for run in runs:
        if other := named.get(Path(run).resolve()):
            raise ConfigError(f"the same run is named twice, as {other} and {run}: leave one out")
        named[Path(run).resolve()] = run


def check_same_config(workdir: Path, config: ConfigDict, *, free: Sequence[str] = ()) -> None:
    """Raise ConfigError if the workdir holds a run with another config; name the keys that differ.

    A key that only one of the two has counts as differing, but keys that newer versions added default to the
    values in `schema.EARLIER`. Keys under those in NO_RESULT and `free` may differ.
    """
    if not (workdir / CONFIG_FILE).exists() or not holds_run(workdir):
        return
    before, now = (_comparable(each, (*NO_RESULT, *free)) for each in (load_config(workdir), config))
    absent = object()
    differing = sorted(key for key in before | now if before.get(key, absent) != now.get(key, absent))
    if differing:
        shown = ", ".join(
            f"{key} ({repr(before[key]) if key in before else 'absent'} there)" for key in differing[:5]
        )
        raise ConfigError(
            f"{workdir} holds a run with another config, differing in {shown}: use the same values, or "
            f"another --workdir, which --config.init_from={workdir} would start from these weights"
        )


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Write config.json."""
    with replace_atomically(workdir / CONFIG_FILE) as file:
        file.write(config.to_json_best_effort(indent=2) + "\n")


def load_config(workdir: Path, option: str = "--workdir", what: str = "a workdir") -> ConfigDict:
    """Return the config of the run in a workdir.

    Raises:
      ConfigError: there is none, or it cannot be read; the message says that `option` must be `what`.
    """
    path = workdir / CONFIG_FILE
    try:
        config = known(ConfigDict(json.loads(path.read_text())))
        check_complete(config)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: {option} must be {what}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is not the config of a run: {error}") from error
    return config


def _comparable(config: ConfigDict, free: Sequence[str]) -> dict[str, Any]:
    """Return dotted keys and values, in JSON's types, without those under the top-level keys `free`.

    An empty dict is a value: {"gain": {}} is an augmentation with its defaults.
    """
    flat: dict[str, Any] = dict(EARLIER)

    def visit(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                visit(value, f"{prefix}{key}.")
            elif f"{prefix}{key}".partition(".")[0] not in free:
                flat[prefix + key] = value

    visit(json.loads(config.to_json_best_effort()), "")
    return flat

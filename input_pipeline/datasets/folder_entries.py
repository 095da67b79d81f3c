"""The sounds of a user's folder with their labels and splits, as its sub-folders or a table give them."""

import posixpath
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from input_pipeline.audio import UNREADABLE, how_to_convert
from input_pipeline.datasets.roles import role
from input_pipeline.datasets.source_files import SourceFiles
from input_pipeline.datasets.stray import DELIMITERS
from input_pipeline.errors import DataError
from input_pipeline.source import composed, read_table, soundless

_LABEL_COLUMNS = ("label", "labels", "category")
_SPLIT_COLUMNS = ("split", "fold")


class Entry(NamedTuple):
    """One file, by its path in the folder, with its labels, split ('' if none is given) and problem."""

    file: str
    labels: tuple[str, ...]
    split: str
    problem: str = ""


class Listed(NamedTuple):
    """Entries, and what gives their splits, for messages."""

    entries: list[Entry]
    splits_from: str


def from_folders(folder: Path, clips: Sequence[str]) -> Listed:
    """Return the entries of clips in class folders, or in class folders of split folders.

    Sub-folders without sound are reported.

    Raises:
      DataError: the sub-folders fit neither layout.
    """
    files = [PurePosixPath(file) for file in clips]
    for file in files:
        if len(file.parts) < 2:
            raise DataError(
                f"config.data_dir: {file} in {folder} is in no class "
                "folder: move it into one, or add a csv with the columns filename and label"
            )
    splits = _are_splits(folder, files)
    if empty := soundless(folder, clips, depth=2 if splits else 1):
        print(
            f"note: config.data_dir: no sound in {', '.join(map(repr, empty))} of {folder}: not classes",
            file=sys.stderr,
        )
    if splits:
        entries = [
            Entry(str(f), (composed(f.parts[1]),), _split_name(f.parts[0]), _problem(f)) for f in files
        ]
    else:
        entries = [Entry(str(f), (composed(f.parts[0]),), "", _problem(f)) for f in files]
    return Listed(entries, f"the folders in {folder}")


def _are_splits(folder: Path, files: Sequence[PurePosixPath]) -> bool:
    """Return whether the top folders are splits with class folders in them; otherwise they are classes.

    A folder with the name of a split that holds sound and no folders may be a class: 'train' is one of
    ESC-50's.

    Raises:
      DataError: the folders fit neither layout.
    """
    named = {file.parts[0] for file in files if role(file.parts[0])}
    if not any(file.parts[0] in named and len(file.parts) > 2 for file in files) and len(named) < 2:
        return False
    strays = (file for file in files if file.parts[0] not in named or len(file.parts) < 3)
    if (first := next(strays, None)) is not None:
        raise DataError(
            f"config.data_dir: {folder} has {', '.join(sorted(named))}, which name "
            f"splits, but {first} is in no class folder of a split: move or remove it; or, if those "
            "are classes, add a csv with the columns filename and label"
        )
    return True


def needed_columns(options: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return the columns that a table of clips has, each by its possible names, with options of `Folder`."""
    label, split = options["label_column"], options["split_column"]
    needed = [[options["filename_column"]], [label] if label else _LABEL_COLUMNS]
    return [*needed, [split]] if split else needed


def from_table(source: SourceFiles, name: str, options: Mapping[str, Any], *, may_be_classes: bool) -> Listed:
    """Return the entries of a table's rows; those whose file is missing have this as their problem.

    Args:
      source: the folder and its files.
      name: the table, by its path in the folder.
      options: those of `Folder`, which name the columns.
      may_be_classes: whether the folders could be the classes; if the table is refused, the message says so.

    Raises:
      DataError: the table lacks a column, cannot be read, or has one file twice with different labels.
    """
    path, filename_column = source.folder / name, options["filename_column"]
    named = [options[key] for key in ("label_column", "split_column") if options[key]]
    hint = ": name its columns with config.dataset, or filename_column= and the like beside data="
    if may_be_classes:
        hint += "; or move it away, if the folders are the classes"
    rows = read_table(path, (filename_column, *named), DELIMITERS, hint)
    label_column = options["label_column"] or _first(_LABEL_COLUMNS, rows[0])
    if not label_column:
        raise DataError(
            f"{path} has none of the columns {', '.join(_LABEL_COLUMNS)}: "
            "name its label column with config.dataset.label_column, or label_column= beside data="
        )
    split_column = options["split_column"] or _first(_SPLIT_COLUMNS, rows[0])
    entries = [
        Entry(
            row[filename_column] if row[filename_column].strip() else f"line {number}",
            _labels(row[label_column]),
            _split_name(row[split_column]) if split_column else "",
            "" if row[filename_column].strip() else "no file name",
        )
        for number, row in enumerate(rows, 2)
    ]
    # By their paths as they are on the disk and as `composed` writes them.
    known = {composed(file): file for file in source.files} | {file: file for file in source.files}
    located = [_located(entry, known) for entry in entries]
    _check_repeated(located, path)
    return Listed(located, f"column {split_column!r} of {path}")


def _located(entry: Entry, known: Mapping[str, str]) -> Entry:
    """Return the entry with its file's path in the folder, or with its problem."""
    if entry.problem:
        return entry
    names = [posixpath.normpath(name) for name in (entry.file, entry.file.replace("\\", "/"))]
    places = [place for name in names for place in (name, f"audio/{name}")]  # Windows writes backslashes
    forms = [*places, *map(composed, places)]
    file = next((known[form] for form in forms if form in known), "")
    if not file:
        return entry._replace(problem=f"no sound file {entry.file}")
    problem = _problem(PurePosixPath(file))
    return entry._replace(file=file, problem=problem if entry.labels else "no label")


def _check_repeated(entries: Sequence[Entry], table: Path) -> None:
    """Raise DataError if a file has other labels in another row, which would be lost."""
    labels_of: defaultdict[str, dict[frozenset[str], None]] = defaultdict(dict)
    for entry in entries:
        labels_of[entry.file].setdefault(frozenset(entry.labels))
    if differing := [file for file, found in labels_of.items() if len(found) > 1]:
        joined = ";".join(sorted(frozenset().union(*labels_of[differing[0]])))
        more = f" (as {len(differing)} files do)" if len(differing) > 1 else ""
        raise DataError(
            f"{table}: {differing[0]} has several rows with different labels{more}: give each file one row "
            f"and join its labels with ;, as in {joined!r}"
        )


def _problem(file: PurePosixPath) -> str:
    return how_to_convert(file.name) if file.suffix.lower() in UNREADABLE else ""


def _first(columns: Sequence[str], row: Mapping[str, str]) -> str:
    return next((column for column in columns if column in row), "")


def _labels(value: str) -> tuple[str, ...]:
    # Labels are not split at commas: AudioSet has 'Male speech, man speaking'.
    labels = (label.strip() for label in composed(value).split(";"))
    return tuple(dict.fromkeys(label for label in labels if label))


def _split_name(value: str) -> str:
    """Return known names in lower case, so that Test and test are one split; a number names a fold."""
    value = composed(value.strip())
    if role(value):
        return value.lower()
    return f"fold{value}" if value.isdecimal() else value

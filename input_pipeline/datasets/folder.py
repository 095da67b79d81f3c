"""Any folder of sound files, with a folder for each class or a csv table."""

import functools
import posixpath
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds

from input_pipeline.audio import UNREADABLE, how_to_convert
from input_pipeline.clip import Clip
from input_pipeline.datasets import stray
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.folds import dealt, stratified
from input_pipeline.datasets.roles import role
from input_pipeline.errors import DataError
from input_pipeline.source import check_classes, composed, is_audio, read_table, soundless

_LABEL_COLUMNS = ("label", "labels", "category")
_SPLIT_COLUMNS = ("split", "fold")


class _Entry(NamedTuple):
    """One file, by its path in the folder, with its labels, split ('' if none is given) and problem."""

    file: str
    labels: tuple[str, ...]
    split: str
    problem: str = ""


class Folder(AudioBuilder):
    """The user's own sounds.

    Without a table the layout is `class/any/depth/name.wav`, or `train/class/name.wav` and
    `test/class/name.wav`, with the names of splits in `roles`.
    A table (the csv at the top of the folder, or option `csv`) has a column `filename`, relative to the
    folder or to its `audio/`; a column `label`, `labels` or `category`, with several labels separated by ';';
    and optionally a column `split` or `fold` (fold 1 becomes split fold1). Its values are separated by
    commas, semicolons or tabs.

    If no split is given, the clips of each class are divided among `folds` splits, fold1, fold2, ..., which
    only depend on the clips' names and labels; see `folds.dealt`, and `folds.stratified` for clips with
    several labels.
    """

    ALSO_READS = frozenset({".csv"}) | UNREADABLE  # reported, or a class of such files would silently vanish
    # 1.0.0 also split labels at commas, and had other folds. 2.0.0 dealt clips with several labels by their
    # combination.
    VERSION = tfds.core.Version("3.0.0")
    OPTIONS: ClassVar[dict[str, Any]] = {
        "csv": "",
        "filename_column": "filename",
        "label_column": "",
        "split_column": "",
        "folds": 5,
    }

    def label_names(self) -> Sequence[str]:
        """All labels that occur, sorted."""
        names = sorted({label for entry in self._entries for label in entry.labels})
        if len(names) < 2:
            single = f"the single class {names[0]!r}" if names else "no class"
            raise DataError(
                f"config.data_dir: {self.source.folder} has {single}: classification needs at least two"
            )
        table = self._table
        check_classes(names, str(self.source.folder / (table or "")))
        return names

    def indispensable(self) -> Sequence[str]:
        """Return all classes if folders name them; none for a table, whose files may be elsewhere."""
        return self.label_names() if self._table is None else ()

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Return the splits that the table or the folders name, or folds."""
        splits: defaultdict[str, list[Clip]] = defaultdict(list)
        for file, labels, split, problem in self._entries:
            sound = self.source.recording(file) if file in self.source.files else None
            splits[split].append(Clip(file, labels, sound, problem))
        return {split: splits[split] for split in sorted(splits)}

    @property
    def dealt(self) -> bool:
        """Whether neither a table nor the folders name splits."""
        return not any(entry.split for entry in self._given[0])

    @property
    def splits_from(self) -> str:
        """The source of the splits: the column of the table, the folders, or the option `folds`."""
        return super().splits_from if self.dealt else self._given[1]

    @functools.cached_property
    def _entries(self) -> list[_Entry]:
        """Every clip, with its final split."""
        entries, splits_from = self._given
        if self.dealt:
            return _deal_out(entries, self.builder_config.options["folds"])
        for file, _, split, _ in entries:
            if not re.fullmatch(r"[A-Za-z]\w*", split) or split == "all":
                raise DataError(
                    f"{splits_from}: {split!r}, of {file}, is not a valid split name: use letters and digits"
                )
        return entries

    @functools.cached_property
    def _given(self) -> tuple[list[_Entry], str]:
        """The clips with the splits that are given, and what gives them."""
        table = self._table
        if table is None and self._columns:
            key, column = next(iter(self._columns.items()))
            raise DataError(
                f"config.dataset.{key}={column!r}: {self.source.folder} has no csv table: put it "
                "there, or leave this option out"
            )
        return self._from_folders() if table is None else self._from_table(table)

    @functools.cached_property
    def _table(self) -> str | None:
        """The path in the folder of the table of clips, or None if there is none.

        Tables that do not list clips, see `stray.others`, are reported.
        """
        named, files = self.builder_config.options["csv"], self.source.files
        if named:
            if named not in files:
                raise DataError(f"config.dataset.csv={named!r}: no such file in {self.source.folder}")
            return named
        tables = [file for file in files if "/" not in file and file.lower().endswith(".csv")]
        others = stray.others(
            self.source.folder, tables, self._needed, self._clips, may_be_none=self._may_be_classes
        )
        found = [table for table in tables if table not in others]
        if len(found) > 1:
            raise DataError(
                f"config.data_dir: {self.source.folder} holds several tables, "
                f"{', '.join(found)}: name one with config.dataset.csv, or csv= beside data="
            )
        if others:
            needed = " and ".join(some[0] for some in self._needed)
            print(
                f"note: config.data_dir: not read, for lack of the columns {needed}: {', '.join(others)} in "
                f"{self.source.folder}",
                file=sys.stderr,
            )
        return found[0] if found else None

    @property
    def _needed(self) -> Sequence[Sequence[str]]:
        """The columns that a table of clips has: one of each."""
        options = self.builder_config.options
        label, split = options["label_column"], options["split_column"]
        needed = [[options["filename_column"]], [label] if label else _LABEL_COLUMNS]
        return [*needed, [split]] if split else needed

    @property
    def _columns(self) -> Mapping[str, str]:
        """The options that name columns of a table, if they differ from the defaults."""
        options = self.builder_config.options
        return {
            key: options[key]
            for key in self.OPTIONS
            if key.endswith("_column") and options[key] != self.OPTIONS[key]
        }

    @functools.cached_property
    def _may_be_classes(self) -> bool:
        """Whether the clips are in several folders, and no option says that a table has the classes."""
        parts = [PurePosixPath(file).parts for file in self._clips]
        return (
            not self._columns
            and all(len(those) > 1 for those in parts)
            and len({top for top, *_ in parts}) > 1
        )

    def _from_folders(self) -> tuple[list[_Entry], str]:
        files = [PurePosixPath(file) for file in self._clips]
        splits_from = f"the folders in {self.source.folder}"
        for file in files:
            if len(file.parts) < 2:
                raise DataError(
                    f"config.data_dir: {file} in {self.source.folder} is in no class "
                    "folder: move it into one, or add a csv with the columns filename and label"
                )
        splits = self._split_folders(files)
        if empty := soundless(self.source.folder, self._clips, depth=2 if splits else 1):
            print(
                f"note: config.data_dir: no sound in {', '.join(map(repr, empty))} of "
                f"{self.source.folder}: not classes",
                file=sys.stderr,
            )
        if splits:
            entries = [
                _Entry(str(f), (composed(f.parts[1]),), _split_name(f.parts[0]), _problem(f)) for f in files
            ]
        else:
            entries = [_Entry(str(f), (composed(f.parts[0]),), "", _problem(f)) for f in files]
        return entries, splits_from

    @functools.cached_property
    def _clips(self) -> list[str]:
        """The files that are clips."""
        return [file for file in self.source.files if self._is_clip(file)]

    def _is_clip(self, file: str) -> bool:
        """Return whether a file is a clip, possibly an unreadable one; a video next to its sound is not."""
        path = PurePosixPath(file)
        unreadable = path.suffix.lower() in UNREADABLE and len(path.parts) > 1
        return is_audio(file) or (unreadable and path.with_suffix("") not in self._stems)

    @functools.cached_property
    def _stems(self) -> Set[PurePosixPath]:
        """The sound files without their suffixes."""
        return {PurePosixPath(file).with_suffix("") for file in self.source.sounds}

    def _split_folders(self, files: Sequence[PurePosixPath]) -> bool:
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
                f"config.data_dir: {self.source.folder} has {', '.join(sorted(named))}, which name "
                f"splits, but {first} is in no class folder of a split: move or remove it; or, if those "
                "are classes, add a csv with the columns filename and label"
            )
        return True

    def _from_table(self, name: str) -> tuple[list[_Entry], str]:
        path, options = self.source.folder / name, self.builder_config.options
        filename_column = options["filename_column"]
        named = [options[key] for key in ("label_column", "split_column") if options[key]]
        hint = ": name its columns with config.dataset, or filename_column= and the like beside data="
        if self._may_be_classes:
            hint += "; or move it away, if the folders are the classes"
        rows = read_table(path, (filename_column, *named), stray.DELIMITERS, hint)
        label_column = options["label_column"] or _first(_LABEL_COLUMNS, rows[0])
        if not label_column:
            raise DataError(
                f"{path} has none of the columns {', '.join(_LABEL_COLUMNS)}: "
                "name its label column with config.dataset.label_column, or label_column= beside data="
            )
        split_column = options["split_column"] or _first(_SPLIT_COLUMNS, rows[0])
        entries = [
            _Entry(
                row[filename_column] if row[filename_column].strip() else f"line {number}",
                _labels(row[label_column]),
                _split_name(row[split_column]) if split_column else "",
                "" if row[filename_column].strip() else "no file name",
            )
            for number, row in enumerate(rows, 2)
        ]
        located = [self._located(entry) for entry in entries]
        _check_repeated(located, path)
        return located, f"column {split_column!r} of {path}"

    def _located(self, entry: _Entry) -> _Entry:
        """Return the entry with its file's path in the folder, or with its problem."""
        if entry.problem:
            return entry
        names = [posixpath.normpath(name) for name in (entry.file, entry.file.replace("\\", "/"))]
        places = [place for name in names for place in (name, f"audio/{name}")]  # Windows writes backslashes
        forms = [*places, *map(composed, places)]
        file = next((self._named[form] for form in forms if form in self._named), "")
        if not file:
            return entry._replace(problem=f"no sound file {entry.file}")
        problem = _problem(PurePosixPath(file))
        return entry._replace(file=file, problem=problem if entry.labels else "no label")

    @functools.cached_property
    def _named(self) -> Mapping[str, str]:
        """The files by their paths as they are on the disk and as `composed` writes them."""
        files = self.source.files
        return {composed(file): file for file in files} | {file: file for file in files}


def _check_repeated(entries: Sequence[_Entry], table: Path) -> None:
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


def _deal_out(entries: list[_Entry], folds: int) -> list[_Entry]:
    named = [(entry.file, entry.labels) for entry in entries]
    if any(len(labels) > 1 for _, labels in named):
        usable = [(entry.file, () if entry.problem else entry.labels) for entry in entries]
        dealt_to = stratified(usable, folds)
    else:
        dealt_to = dealt(named, folds)
    return sorted(entry._replace(split=fold) for entry, fold in zip(entries, dealt_to, strict=True))

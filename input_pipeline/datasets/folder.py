"""Any folder of sound files: a folder for each class, or a csv table."""

import functools
import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from input_pipeline.datasets.builder import AudioBuilder, Clip
from input_pipeline.datasets.source import is_audio, read_table
from input_pipeline.errors import DataError

_LABEL_COLUMNS = ("label", "labels", "category")
_SPLIT_COLUMNS = ("split", "fold")
_SPLIT_FOLDERS = frozenset(
    {"train", "training", "val", "valid", "validation", "dev", "test", "eval"}
)


class Folder(AudioBuilder):
    """The user's own sounds.

    Without a table: `class/any/depth/name.wav`, or `train/class/name.wav` and `test/class/name.wav`.
    With one (the csv at the top of the folder, or option `csv`): a column `filename`, relative to the
    folder or to its `audio/`; a column `label`, `labels` or `category`, several labels separated by
    ';' or ','; if present a column `split` or `fold` (fold 1 becomes split fold1).

    Where nothing says which split a clip is in, the clips of each class are dealt out to `folds`
    splits, fold1, fold2, ..., in an order that only depends on their names.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {
        "csv": "",
        "filename_column": "filename",
        "label_column": "",
        "split_column": "",
        "folds": 5,
    }

    def label_names(self) -> Sequence[str]:
        """All labels that occur, sorted."""
        names = sorted({label for _, labels, _ in self._entries for label in labels})
        if len(names) < 2:
            raise DataError(
                f"config.data_dir: {self.builder_config.source} has the single class {names[0]!r}: "
                "classification needs at least two"
            )
        return names

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """The splits that table or folders name, or folds."""
        splits: defaultdict[str, list[Clip]] = defaultdict(list)
        for file, labels, split in self._entries:
            splits[split].append(Clip(file, labels, self.builder_config.source / file))
        return {split: splits[split] for split in sorted(splits)}

    @functools.cached_property
    def _entries(self) -> list[tuple[str, tuple[str, ...], str]]:
        """File, labels and split of every clip."""
        table = self._table()
        entries = self._from_folders() if table is None else self._from_table(table)
        if not any(split for _, _, split in entries):
            return _deal_out(entries, self.builder_config.options["folds"])
        for file, _, split in entries:
            if not re.fullmatch(r"[A-Za-z]\w*", split) or split == "all":
                raise DataError(
                    f"{file} is in split {split!r}: name splits with letters and digits"
                )
        return entries

    def _table(self) -> str | None:
        """The table's path in the folder, or None where there is none."""
        named, files = self.builder_config.options["csv"], self.builder_config.files
        if named:
            if named not in files:
                raise DataError(f"csv={named!r}: no such file in {self.builder_config.source}")
            return named
        found = [file for file in files if "/" not in file and file.lower().endswith(".csv")]
        if len(found) > 1:
            raise DataError(
                f"config.data_dir: {self.builder_config.source} holds several tables, "
                f"{', '.join(found)}: name one with the option csv"
            )
        return found[0] if found else None

    def _from_folders(self) -> list[tuple[str, tuple[str, ...], str]]:
        files = [PurePosixPath(file) for file in self.builder_config.files if is_audio(file)]
        by_split = all(len(f.parts) > 2 and f.parts[0].lower() in _SPLIT_FOLDERS for f in files)
        depth = 1 if by_split else 0
        for file in files:
            if len(file.parts) < 2:
                raise DataError(
                    f"config.data_dir: {file} in {self.builder_config.source} is in no class folder: "
                    "move it into one, or add a csv with the columns filename and label"
                )
        return [
            (file.as_posix(), (file.parts[depth],), file.parts[0].lower() if by_split else "")
            for file in files
        ]

    def _from_table(self, name: str) -> list[tuple[str, tuple[str, ...], str]]:
        path, options = self.builder_config.source / name, self.builder_config.options
        filename_column = options["filename_column"]
        named = [options[key] for key in ("label_column", "split_column") if options[key]]
        rows = read_table(path, (filename_column, *named))
        label_column = options["label_column"] or _first(_LABEL_COLUMNS, rows)
        if not label_column:
            raise DataError(
                f"{path} has no column {', '.join(_LABEL_COLUMNS)}: name it, label_column"
            )
        split_column = options["split_column"] or _first(_SPLIT_COLUMNS, rows)
        entries = [
            (
                row[filename_column],
                _labels(row[label_column]),
                _split_name(row[split_column]) if split_column else "",
            )
            for row in rows
        ]
        return self._located(path, entries)

    def _located(
        self, table: Path, entries: list[tuple[str, tuple[str, ...], str]]
    ) -> list[tuple[str, tuple[str, ...], str]]:
        """The entries with file names as in the listing; complains of absent and of unlisted files."""
        files = self.builder_config.files
        located, absent = [], []
        for filename, labels, split in entries:
            found = [name for name in (filename, f"audio/{filename}") if name in files]
            if not found:
                absent.append(filename)
                continue
            if not labels:
                raise DataError(f"{table}: {filename} has no label")
            located.append((found[0], labels, split))
        if absent:
            raise DataError(
                f"{table} names {len(absent)} files that are not in {self.builder_config.source}, "
                f"the first is {absent[0]!r}: add them or remove their rows"
            )
        unlisted = sum(map(is_audio, files)) - len({file for file, _, _ in located})
        if unlisted:
            print(f"warning: {unlisted} sound files are not in {table}: left out", file=sys.stderr)
        return located


def _first(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    return next((column for column in columns if rows and column in rows[0]), "")


def _labels(value: str) -> tuple[str, ...]:
    labels = (label.strip() for label in re.split("[;,]", value))
    return tuple(dict.fromkeys(label for label in labels if label))


def _split_name(value: str) -> str:
    value = value.strip()
    return f"fold{value}" if value.isdecimal() else value


def _deal_out(
    entries: list[tuple[str, tuple[str, ...], str]], folds: int
) -> list[tuple[str, tuple[str, ...], str]]:
    """Gives each class's files in turn to the folds, ordered by a hash of their names."""
    if not isinstance(folds, int) or folds < 2:
        raise DataError(f"folds={folds!r} must be a whole number of at least 2")
    by_class: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for file, labels, _ in entries:
        by_class[labels].append(file)
    dealt = []
    for labels, files in by_class.items():
        ordered = sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest())
        dealt += [(file, labels, f"fold{i % folds + 1}") for i, file in enumerate(ordered)]
    return sorted(dealt)

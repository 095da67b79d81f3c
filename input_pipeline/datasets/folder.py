"""Any folder of sound files, with a folder for each class or a csv table."""

import functools
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from input_pipeline.audio import UNREADABLE
from input_pipeline.clip import Clip
from input_pipeline.datasets import stray
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.folder_entries import Entry, Listed, from_folders, from_table, needed_columns
from input_pipeline.datasets.folds import dealt, stratified
from input_pipeline.errors import DataError
from input_pipeline.source import check_classes, is_audio


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
        return not any(entry.split for entry in self._given.entries)

    @property
    def splits_from(self) -> str:
        """The source of the splits: the column of the table, the folders, or the option `folds`."""
        return super().splits_from if self.dealt else self._given.splits_from

    @functools.cached_property
    def _entries(self) -> list[Entry]:
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
    def _given(self) -> Listed:
        """The clips with the splits that are given, and what gives them."""
        table = self._table
        if table is None and self._columns:
            key, column = next(iter(self._columns.items()))
            raise DataError(
                f"config.dataset.{key}={column!r}: {self.source.folder} has no csv table: put it "
                "there, or leave this option out"
            )
        if table is None:
            return from_folders(self.source.folder, self._clips)
        return from_table(
            self.source, table, self.builder_config.options, may_be_classes=self._may_be_classes
        )

    @functools.cached_property
    def _table(self) -> str | None:
        """The path in the folder of the table of clips, or None if there is none.

        Tables that do not list clips, see `stray.others`, are reported.
        """
        options, files = self.builder_config.options, self.source.files
        named, needed = options["csv"], needed_columns(options)
        if named:
            if named not in files:
                raise DataError(f"config.dataset.csv={named!r}: no such file in {self.source.folder}")
            return named
        tables = [file for file in files if "/" not in file and file.lower().endswith(".csv")]
        others = stray.others(
            self.source.folder, tables, needed, self._clips, may_be_none=self._may_be_classes
        )
        found = [table for table in tables if table not in others]
        if len(found) > 1:
            raise DataError(
                f"config.data_dir: {self.source.folder} holds several tables, "
                f"{', '.join(found)}: name one with config.dataset.csv, or csv= beside data="
            )
        if others:
            columns = " and ".join(some[0] for some in needed)
            print(
                f"note: config.data_dir: not read, for lack of the columns {columns}: {', '.join(others)} in "
                f"{self.source.folder}",
                file=sys.stderr,
            )
        return found[0] if found else None

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


def _deal_out(entries: list[Entry], folds: int) -> list[Entry]:
    named = [(entry.file, entry.labels) for entry in entries]
    if any(len(labels) > 1 for _, labels in named):
        usable = [(entry.file, () if entry.problem else entry.labels) for entry in entries]
        dealt_to = stratified(usable, folds)
    else:
        dealt_to = dealt(named, folds)
    return sorted(entry._replace(split=fold) for entry, fold in zip(entries, dealt_to, strict=True))

"""ESC-50 and its subset ESC-10: environmental sounds of 5 s in five official folds."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.download import fetch_zip
from input_pipeline.errors import DataError
from input_pipeline.source import read_table

SECONDS = 5.0
_CLASSES = {"esc50": 50, "esc10": 10}
_TABLES = ("meta/esc50.csv", "meta.csv")
_ARCHIVE_BYTES = 2 << 30  # the archive has 0.6 GB, unpacked 0.9


class Esc50(AudioBuilder):
    """2000 clips, 50 classes (`subset='esc10'`: 400 clips, 10 classes), splits fold1 to fold5.

    Layout as published: `audio/` and `meta/esc50.csv` (or `meta.csv`). The files may be in any
    format; the suffixes of their names are ignored. Clips are cut or zero-padded at the end to 5 s.

    No release is published, so the downloaded archive is the current state of the repository's branch,
    without a checksum. The fingerprints of the splits show whether two copies are the same.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"subset": "esc50"}
    ARCHIVE_URL: ClassVar[str] = "https://github.com/karoldvl/ESC-50/archive/master.zip"
    HOMEPAGE = "https://github.com/karolpiczak/ESC-50"
    LICENSE = "CC BY-NC 3.0 (ESC-10: CC BY 3.0)"
    CITATION = (
        "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. "
        "ACM Multimedia 2015. DOI 10.1145/2733373.2806390"
    )

    @classmethod
    def download(cls, downloads: Path, *, progress: bool) -> Path:
        """Download the official archive."""
        return fetch_zip(cls.ARCHIVE_URL, downloads / "esc50", max_bytes=_ARCHIVE_BYTES, progress=progress)

    def label_names(self) -> Sequence[str]:
        """The categories in the order of the official numbers."""
        return [name for _, name in sorted({(int(r["target"]), r["category"]) for r in self._rows})]

    @functools.cached_property
    def _table(self) -> Path:
        for table in _TABLES:
            if table in self.source.files:
                return self.source.folder / table
        raise DataError(
            f"config.data_dir: {self.source.folder} has neither {' nor '.join(_TABLES)}: "
            "name the folder that holds them and audio/"
        )

    @functools.cached_property
    def _all_rows(self) -> list[dict[str, str]]:
        rows = read_table(self._table, ("filename", "fold", "target", "category", "esc10"))
        for row in rows:
            if not row["target"].isdecimal() or row["fold"] not in list("12345"):
                raise DataError(f"{self._table}: {row['filename']} needs a fold from 1 to 5 and a target")
        return rows

    @functools.cached_property
    def _rows(self) -> list[dict[str, str]]:
        """The rows of the table that belong to the subset."""
        subset = self.builder_config.options["subset"]
        if subset not in _CLASSES:
            raise DataError(f"config.dataset.subset={subset!r} must be 'esc50' or 'esc10'")
        rows = self._all_rows
        if subset == "esc10":
            rows = [row for row in rows if row["esc10"].lower() == "true"]
        classes = len({(row["target"], row["category"]) for row in rows})
        if classes != _CLASSES[subset]:
            raise DataError(
                f"{self._table} has {classes} classes, but {subset} has {_CLASSES[subset]}: "
                "complete the folder or set config.dataset.subset"
            )
        return rows

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits fold1 to fold5."""
        splits: dict[str, list[Clip]] = {f"fold{fold}": [] for fold in range(1, 6)}
        for row in self._rows:
            file = row["filename"]
            clip = self.source.clip(PurePosixPath(file).stem, (row["category"],), f"audio/{file}")
            splits[f"fold{row['fold']}"].append(dataclasses.replace(clip, seconds=SECONDS))
        return splits

    def unlisted(self) -> list[str]:
        """Return the files that the table does not name; clips outside the chosen subset do not count."""
        named = {PurePosixPath(row["filename"]).stem for row in self._all_rows}
        return [file for file in super().unlisted() if PurePosixPath(file).stem not in named]

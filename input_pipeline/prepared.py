"""A prepared copy of a data set: its splits as random-access sources, its labels and its manifests."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import manifest as manifests
from input_pipeline import sampling, storage
from input_pipeline.errors import DataError, shortened_reason
from input_pipeline.manifest import manifest_path, twins_path, unlisted_path
from input_pipeline.records import Records


@dataclass(frozen=True)
class Prepared:
    """A complete, readable copy on disk. A `split` argument may join several, as in 'fold2+fold3'.

    Attributes:
      name: name of the data set.
      labels: class names in the order of their indices.
      sample_rate: rate of the stored clips, Hz.
      splits: names of the splits.
      folder: folder of the records and manifests.
    """

    name: str
    labels: tuple[str, ...]
    sample_rate: int
    splits: tuple[str, ...]
    folder: Path

    @classmethod
    def open(cls, name: str, folder: Path, sample_rate: int) -> "Prepared":
        """Open a copy that `prepare` has finished.

        Raises:
          DataError: files of the copy are missing, incomplete or damaged.
        """
        _check_present([folder / "dataset_info.json", folder / "features.json"])
        info = _described(folder)
        for split, parts in info.splits.items():
            _check_present([manifest_path(folder, split), *parts.filepaths])
            there = sum(Path(file).stat().st_size for file in parts.filepaths)
            if there != parts.num_bytes:
                raise damaged(folder, f"split {split!r} has {there} of {int(parts.num_bytes)} bytes")
        labels = tuple(info.features["labels"].feature.names)
        return cls(name, labels, sample_rate, tuple(info.splits), folder)

    def manifest(self, split: str) -> manifests.Manifest:
        """Return the manifest of the split: its clips, in the order of `source`, and its rejected files.

        Raises:
          DataError: unknown split; the message lists the known ones.
        """
        return manifests.joined(map(self._manifest, sampling.split_names(split, self.splits)))

    def unlisted(self) -> tuple[manifests.Rejected, ...]:
        """Return the sound in the source folder that is in no split; () for copies of older versions."""
        return _read_list(unlisted_path(self.folder))

    def twins(self) -> tuple[manifests.Rejected, ...]:
        """Return the clips that are byte for byte in an earlier split too; () as for `unlisted`."""
        return _read_list(twins_path(self.folder))

    def source(self, split: str) -> Sequence[dict[str, Any]]:
        """Return the clips of the split by index: audio int16 (n,), labels (class indices), id (bytes).

        The source can be pickled and sent to other processes. A slice of it is a list, read at once.

        Raises:
          DataError: unknown split; the message lists the known ones.
        """
        joined = "+".join(sampling.split_names(split, self.splits))
        info = tfds.builder_from_directory(self.folder).info
        files = info.splits[joined].file_instructions
        return storage.Decoded(Records(files, info.features.deserialize_example_np))

    def targets(self, split: str) -> np.ndarray:
        """Return multi-hot labels, float32 (clips, classes), in the order of `source`."""
        index = {label: i for i, label in enumerate(self.labels)}
        rows = self.manifest(split).rows
        targets = np.zeros((len(rows), len(self.labels)), np.float32)
        for target, row in zip(targets, rows, strict=True):
            target[[index[label] for label in row.labels]] = 1
        return targets

    def clips_by_class(self, split: str) -> list[np.ndarray]:
        """Return for each class the increasing indices (n,), into `source`, of the clips that have it.

        For AudioSet, 2 million clips with about 2 labels each, they take 32 MB; `targets` takes 4.3 GB.
        """
        index = {label: i for i, label in enumerate(self.labels)}
        clips: list[list[int]] = [[] for _ in self.labels]
        for clip, row in enumerate(self.manifest(split).rows):
            for label in row.labels:
                clips[index[label]].append(clip)
        return [np.array(members, np.int64) for members in clips]

    def fingerprint(self, split: str) -> str:
        """Return a SHA-256 that is equal exactly if the clips and labels of the split are the same."""
        names = sampling.split_names(split, self.splits)
        return manifests.fingerprint(
            (manifest_path(self.folder, name), len(self._manifest(name).rows)) for name in names
        )

    @functools.cached_property
    def _manifests(self) -> dict[str, manifests.Manifest]:
        counts = tfds.builder_from_directory(self.folder).info.splits
        return {split: self._whole_manifest(split, counts[split].num_examples) for split in self.splits}

    def _whole_manifest(self, split: str, clips: int) -> manifests.Manifest:
        path = manifest_path(self.folder, split)
        manifest = _read_manifest(path)
        if len(manifest.rows) != clips:
            raise damaged(self.folder, f"{path.name} has {len(manifest.rows)} of {clips} clips")
        if unknown := {label for row in manifest.rows for label in row.labels}.difference(self.labels):
            raise damaged(self.folder, f"{path.name} has {min(unknown)!r}, which is not one of its classes")
        return manifest

    def _manifest(self, split: str) -> manifests.Manifest:
        return self._manifests[split]


def _described(folder: Path) -> tfds.core.DatasetInfo:
    """Return what a copy records of its splits and features.

    Raises:
      DataError: it is damaged.
    """
    try:
        return tfds.builder_from_directory(folder).info
    except (OSError, MemoryError):  # they say nothing about what is in the files
        raise
    except Exception as error:  # on damaged files TFDS may raise nearly anything
        what = f"dataset_info.json, features.json or the list of its classes: {shortened_reason(error, 100)}"
        raise damaged(folder, what) from error


def _read_list(path: Path) -> tuple[manifests.Rejected, ...]:
    return _read_manifest(path).rejected if path.exists() else ()


def _read_manifest(path: Path) -> manifests.Manifest:
    try:
        return manifests.read(path)
    except ValueError as error:
        what = f"{path.name} cannot be read: {shortened_reason(error, 100)}"
        raise damaged(path.parent, what) from error


def _check_present(files: Sequence[Path]) -> None:
    for file in files:
        if not file.exists():
            raise damaged(file.parent, f"it lacks {file.name}")


def damaged(folder: Path, what: str) -> DataError:
    """Return the error that says what is wrong with a copy that was finished once."""
    return DataError(f"the prepared copy {folder} is damaged ({what}): delete it, or copy it again")

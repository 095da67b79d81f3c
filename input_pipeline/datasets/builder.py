"""The contract of every data set: one TFDS builder that lists clips, this base that stores them.

A record holds `audio` int16 (n,), `labels` (any number of class indices) and `id`, in array_record
files.

ShardBasedBuilder rather than GeneratorBasedBuilder: without TensorFlow the latter fails on splits
beyond 1 GB (its shuffler spills through tf.io.gfile), and shards in source order keep manifest and
records in the same order; the loader shuffles anyway.
"""

import abc
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import audio, manifest
from input_pipeline.datasets.source import Stamp
from input_pipeline.errors import DataError

# TFDS holds the clips of one shard in memory while it writes: 256 clips of 10 s at 32 kHz are 164 MB.
_CLIPS_PER_SHARD = 256


@dataclass(frozen=True)
class Clip:
    """One source clip.

    Attributes:
      id: unique name in the data set.
      labels: names of its classes.
      path: its file; None for synthesised sound.
      problem: why it is rejected unheard, such as an absent file; '' where nothing speaks against it.
    """

    id: str
    labels: tuple[str, ...]
    path: Path | None = None
    problem: str = ""


@dataclass
class AudioConfig(tfds.core.BuilderConfig):
    """What a prepared copy depends on; `name` is its identity on disk.

    Attributes:
      source: folder of the source files.
      files: what `source.scan` found in it, by path relative to it.
      sample_rate: stored rate, Hz.
      max_seconds: longer files are rejected.
      max_failed_share: share of a split's files that may be rejected.
      options: the options of the builder, complete.
      advance: called once per finished clip, for a progress bar.
    """

    source: Path = Path()
    files: Mapping[str, Stamp] = field(default_factory=dict)
    sample_rate: int = 16000
    max_seconds: float = audio.MAX_SECONDS
    max_failed_share: float = 0.05
    options: Mapping[str, Any] = field(default_factory=dict)
    advance: Callable[[], Any] = lambda: None


def manifest_path(folder: Path, split: str) -> Path:
    """Where the manifest of a split lies in the folder of a prepared copy."""
    return folder / f"{split}.manifest.jsonl"


class AudioBuilder(tfds.core.ShardBasedBuilder):
    """Stores what a data set lists; the data set says which clips, splits and classes."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks for checksum files beside the code with importlib_resources, which it does not install.
    code_path = None

    # Options of the data set and their defaults.
    OPTIONS: ClassVar[dict[str, Any]] = {}
    # Whether the data set reads files; False for synthesised sound.
    NEEDS_SOURCE: ClassVar[bool] = True
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""

    builder_config: AudioConfig

    @classmethod
    def download(cls, downloads: Path, *, progress: bool) -> Path:
        """Fetches the source into a folder under `downloads`, for a user who names no data_dir."""
        raise DataError(f"data set {cls.name!r} is not downloaded: name its folder with --config.data_dir")

    @abc.abstractmethod
    def label_names(self) -> Sequence[str]:
        """The class names, in the order of their indices."""

    @abc.abstractmethod
    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """The clips of each split, in the order of storage."""

    def load(self, clip: Clip) -> tuple[audio.Audio, str]:
        """One clip at its own rate, and the SHA-256 of its source.

        Raises:
          audio.AudioError: with the reason why the clip is to be rejected.
        """
        assert clip.path is not None
        try:
            with clip.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise audio.AudioError(f"not readable: {error.strerror}") from error
        return audio.decode(clip.path, max_seconds=self.builder_config.max_seconds), sha256

    def finish(self, samples: np.ndarray) -> np.ndarray:
        """Last change to the samples (n,) at the stored rate, such as an official length."""
        return samples

    @functools.cached_property
    def listing(self) -> Mapping[str, Sequence[Clip]]:
        """The clips of each split, listed once; splits without clips are left out.

        Raises:
          DataError: no clips, two clips of one id, or a label that is not among the label names.
        """
        listing = {split: clips for split, clips in self.clips().items() if clips}
        if not listing:
            raise DataError(f"data set {self.name!r} lists no clips: see its options and its folder")
        known, seen = set(self.label_names()), set()
        for clip in itertools.chain.from_iterable(listing.values()):
            if clip.problem:
                continue
            if clip.id in seen:
                raise DataError(f"data set {self.name!r} lists {clip.id!r} twice: name it once")
            if unknown := set(clip.labels) - known:
                raise DataError(f"{clip.id!r} has the unknown label {min(unknown)!r}: mend its table")
            seen.add(clip.id)
        return listing

    def _info(self) -> tfds.core.DatasetInfo:
        labels = tfds.features.ClassLabel(names=list(self.label_names()))
        # Encoded as bytes: a list of varints (the default) reads six times slower.
        samples = tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES)
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__ or "",
            features=tfds.features.FeaturesDict(
                {
                    "audio": samples,
                    "labels": tfds.features.Sequence(labels),
                    "id": tfds.features.Text(),
                }
            ),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict(
                sample_rate=self.builder_config.sample_rate,
                options=dict(self.builder_config.options),
                synthetic=not self.NEEDS_SOURCE,
            ),
        )

    def _shard_iterators_per_split(
        self, dl_manager: Any
    ) -> dict[str, list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]]:
        del dl_manager
        self._manifests: dict[str, tuple[list, list]] = {split: ([], []) for split in self.listing}
        return {
            split: [
                functools.partial(self._examples, split, start, start + _CLIPS_PER_SHARD)
                for start in range(0, len(clips), _CLIPS_PER_SHARD)
            ]
            for split, clips in self.listing.items()
        }

    def _examples(self, split: str, start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        rows, rejected = self._manifests[split]
        for index, clip in enumerate(self.listing[split][start:stop], start):
            try:
                samples, row = self._convert(clip)
            except audio.AudioError as error:
                rejected.append(manifest.Rejected(clip.id, str(error)))
            else:
                rows.append(row)
                yield index, {"audio": samples, "labels": list(clip.labels), "id": clip.id}
            self.builder_config.advance()

    def _convert(self, clip: Clip) -> tuple[np.ndarray, manifest.Row]:
        if clip.problem:
            raise audio.AudioError(clip.problem)
        loaded, sha256 = self.load(clip)
        resampled = audio.resample(loaded, self.builder_config.sample_rate)
        samples, clipped = audio.to_int16(self.finish(resampled.samples))
        row = manifest.Row(
            id=clip.id,
            sha256=sha256,
            samples=len(samples),
            source_rate=loaded.source_rate,
            channels=loaded.channels,
            peak=float(np.abs(samples.astype(np.int32)).max()) / 32768,
            clipped=clipped,
            labels=clip.labels,
        )
        return samples, row

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Writes records, then manifests, inside the folder that TFDS renames when done."""
        super()._download_and_prepare(dl_manager, download_config)
        folder = Path(self.data_dir)
        for split, (rows, rejected) in self._manifests.items():
            whole = manifest.Manifest(tuple(rows), tuple(rejected))
            whole.write(manifest_path(folder, split))
            listed = folder.parent / f"{split}.rejected.jsonl"  # outlives the unfinished folder
            manifest.Manifest(rejected=tuple(rejected)).write(listed)
            manifest.check_share(whole, split, listed, self.builder_config.max_failed_share)
            listed.unlink()

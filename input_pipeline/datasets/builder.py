"""The base class of all data sets: a TFDS builder that stores the clips that its subclass lists.

A record holds `audio` (int16 samples, or FLAC), `labels` (any number of class indices) and `id`, in
array_record files; `conversion` writes them.
"""

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from input_pipeline import audio, sampling, shards, storage
from input_pipeline.clip import Clip
from input_pipeline.datasets.conversion import convert
from input_pipeline.datasets.source_files import SourceFiles
from input_pipeline.errors import DataError


@dataclass
class AudioConfig(tfds.core.BuilderConfig):
    """Configuration of a prepared copy; `name` is its identity on disk. Nothing changes it once it is made.

    Attributes:
      source: the source files; none for synthesised sound.
      sample_rate: stored rate, Hz.
      max_seconds: longer files are rejected.
      options: all options of the builder, defaults included.
      storage: how clips are stored, see `storage.STORAGES`.
      staging: folder of finished shards until all are finished.
      max_failed_share: largest share of a split's files that may be rejected; see `manifest.check_shares`.
        This and the following change no byte of the copy.
      workers: number of processes that convert; 0 is one per core.
      splits: the splits of each use, as in `config.splits`, checked before anything is converted.
      progress: whether to show a progress bar.
    """

    source: SourceFiles = field(default_factory=SourceFiles)
    sample_rate: int = 16000
    max_seconds: float = audio.MAX_SECONDS
    options: Mapping[str, Any] = field(default_factory=dict)
    storage: str = "pcm"
    staging: Path = Path()
    max_failed_share: float = 0.05
    workers: int = 0
    splits: Mapping[str, str] = field(default_factory=dict)
    progress: bool = False


class AudioBuilder(FileReaderBuilder):
    """Base class that stores the clips of a data set; a subclass lists its clips, splits and classes."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS would look for checksum files next to the code with importlib_resources, which it does not install.
    code_path = None

    # Options of the data set and their defaults.
    OPTIONS: ClassVar[dict[str, Any]] = {}
    # Suffixes of files that the data set reads besides sound files.
    ALSO_READS: ClassVar[frozenset[str]] = frozenset({".csv"})
    # Whether the data set reads files; False for synthesised sound.
    NEEDS_SOURCE: ClassVar[bool] = True
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""

    builder_config: AudioConfig

    @classmethod
    def download(cls, downloads: Path, *, progress: bool) -> Path:
        """Download the source into a folder under `downloads`, for a user who names no data_dir."""
        raise DataError(f"data set {cls.name!r} is not downloaded automatically: set --config.data_dir")

    @property
    def source(self) -> SourceFiles:
        """The source files."""
        return self.builder_config.source

    @abc.abstractmethod
    def label_names(self) -> Sequence[str]:
        """The class names, in the order of their indices."""

    def indispensable(self) -> Sequence[str]:
        """Return the classes that must each have a usable clip."""
        return ()

    @abc.abstractmethod
    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """The clips of each split, in the order of storage."""

    @property
    def dealt(self) -> bool:
        """Whether the files that are there are dealt into folds, so that one file more can change every fold.

        If so, the data set has an option `folds`.
        """
        return False

    @property
    def splits_from(self) -> str:
        """Where the names of the splits come from, for messages."""
        if self.dealt:
            return f"config.dataset.folds={self.builder_config.options['folds']}"
        return f"data set {self.name!r}"

    @functools.cached_property
    def listing(self) -> Mapping[str, Sequence[Clip]]:
        """The clips of each split; splits without clips are left out.

        A clip gets a problem if its id was listed before, in this split or an earlier one, or if one of its
        classes is unknown.

        Raises:
          DataError: no clips.
        """
        known, seen = frozenset(self.label_names()), set[str]()
        listing = {
            split: [_checked(clip, known, seen) for clip in clips]
            for split, clips in self.clips().items()
            if clips
        }
        if not listing:
            raise DataError(f"data set {self.name!r} lists no clips: check its options and its folder")
        return listing

    def check_uses(self) -> None:
        """Raise DataError if a split that is to be used does not exist."""
        for expression in self.builder_config.splits.values():
            sampling.split_names(expression, tuple(self.listing), key="config.splits")

    def unlisted(self) -> list[str]:
        """Return the sound files of the folder that are in no split, by their paths in it."""
        clips = (clip for listed in self.listing.values() for clip in listed)
        taken = {clip.sound.file for clip in clips if clip.sound}
        return [file for file in self.source.sounds if self.source.folder / file not in taken]

    def features(self, kind: str) -> tfds.features.FeaturesDict:
        """Return the features of a record for this kind of storage."""
        labels = tfds.features.ClassLabel(names=list(self.label_names()))
        return tfds.features.FeaturesDict(
            {
                "audio": storage.feature(kind),
                "labels": tfds.features.Sequence(labels),
                "id": tfds.features.Text(),
            }
        )

    @property
    def recipe(self) -> shards.Recipe:
        """How the clips become records."""
        config = self.builder_config
        return shards.Recipe(config.sample_rate, config.max_seconds, config.storage, self.info.features)

    # TFDS would print both to stdout, which belongs to the caller.
    def _log_download_bytes(self) -> None: ...

    def _log_download_done(self) -> None: ...

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__ or "",
            features=self.features(self.builder_config.storage),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=self.LICENSE,
            # What the copy was made of and how, so that it can be used without its source files.
            metadata=tfds.core.MetadataDict(
                sample_rate=self.builder_config.sample_rate,
                max_seconds=self.builder_config.max_seconds,
                options=dict(self.builder_config.options),
                synthetic=not self.NEEDS_SOURCE,
                dealt=self.dealt,
            ),
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Convert the clips into the folder that TFDS renames at the end."""
        convert(self, download_config)


def _checked(clip: Clip, known: frozenset[str], seen: set[str]) -> Clip:
    problem = clip.problem
    if clip.id in seen:
        problem = "listed a second time"
    elif not problem and (unknown := set(clip.labels) - known):
        problem = f"unknown label {min(unknown)!r}"
    seen.add(clip.id)
    return clip if problem == clip.problem else replace(clip, problem=problem)

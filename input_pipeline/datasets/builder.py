"""The base class of all data sets: a TFDS builder that stores the clips that its subclass lists.

A record holds `audio` (int16 samples, or FLAC), `labels` (any number of class indices) and `id`, in
array_record files.

TFDS's own generators are not used. GeneratorBasedBuilder fails without TensorFlow on splits beyond 1 GB (its
shuffler spills through tf.io.gfile). ShardBasedBuilder converts one shard after another, and starts over
after it was killed. Shards in source order keep manifest and records in the same order; the loader shuffles
anyway.
"""

import abc
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core import split_builder, writer
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tqdm import tqdm

from input_pipeline import audio, engines, manifest, sampling, shards, storage
from input_pipeline.clip import Clip
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


def manifest_path(folder: Path, split: str) -> Path:
    """Return the path of a split's manifest in the folder of a prepared copy."""
    return folder / f"{split}.manifest.jsonl"


def unlisted_path(folder: Path) -> Path:
    """Return the path, in a prepared copy, of the list of source sounds that are in none of its splits."""
    return folder / "unlisted.jsonl"


def twins_path(folder: Path) -> Path:
    """Return the path, in a prepared copy, of the list of clips that are byte for byte in two splits."""
    return folder / "twins.jsonl"


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

    def unlisted(self) -> list[str]:
        """Return the sound files of the folder that are in no split, by their paths in it."""
        clips = (clip for listed in self.listing.values() for clip in listed)
        taken = {clip.sound.file for clip in clips if clip.sound}
        return [file for file in self.source.sounds if self.source.folder / file not in taken]

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

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        """Convert the shards not staged yet, then gather all in the folder that TFDS renames at the end."""
        config = self.builder_config
        self._check_listing()
        cut = shards.cut(self.listing, config.staging)
        config.staging.mkdir(exist_ok=True)
        pending = [shard for shard in cut if not shard.finished()]
        with self._bar(cut, pending) as bar:
            if download_config is not None and download_config.beam_options is not None:
                self._convert_on_beam(pending, download_config)
                bar.update(shards.clips_in(pending))
            else:
                engines.run_here(pending, self.recipe, workers=config.workers, advance=bar.update)
        manifests = self._check_converted(cut)
        self.info.set_splits(
            tfds.core.SplitDict([self._gather(split, cut, manifests[split]) for split in self.listing])
        )
        self._check_splits()

    def _bar(self, cut: list[shards.Shard], pending: list[shards.Shard]) -> tqdm:
        """Return a bar that starts at the finished clips, which do not count for its rate."""
        total = shards.clips_in(cut)
        return tqdm(
            total=total,
            initial=total - shards.clips_in(pending),
            desc=f"preparing {self.name}",
            unit=" clips",
            mininterval=0.5,
            disable=not self.builder_config.progress,
        )

    def _check_listing(self) -> None:
        """Check the listing before anything is converted.

        Raises:
          DataError: as `check_uses`, or too many clips of a split have a problem already.
        """
        self.check_uses()
        self._check_shares(
            {
                split: (
                    [manifest.Rejected(clip.id, clip.problem) for clip in clips if clip.problem],
                    len(clips),
                )
                for split, clips in self.listing.items()
            }
        )

    def check_uses(self) -> None:
        """Raise DataError if a split that is to be used does not exist."""
        for expression in self.builder_config.splits.values():
            sampling.split_names(expression, tuple(self.listing), key="config.splits")

    def _check_shares(self, parts: Mapping[str, tuple[Sequence[manifest.Rejected], int]]) -> None:
        folder = Path(self.data_dir).parent  # outlives the unfinished folder
        listed = {split: folder / f"{split}.rejected.jsonl" for split in parts}
        for split, (rejected, _) in parts.items():
            manifest.Manifest(rejected=tuple(rejected)).write(listed[split])
        manifest.check_shares(parts, listed, self.builder_config.max_failed_share)
        for path in listed.values():
            path.unlink()

    def _check_splits(self) -> None:
        """Write the lists of sounds that are in no split, and of clips that are in two.

        Raises:
          DataError: a class that must have a clip has none.
        """
        folder = Path(self.data_dir)
        left_out = tuple(manifest.Rejected(file, "in no split") for file in self.unlisted())
        manifest.Manifest(rejected=left_out).write(unlisted_path(folder))
        splits = {split: manifest.read(manifest_path(folder, split)) for split in self.listing}
        manifest.Manifest(rejected=tuple(manifest.twins(splits))).write(twins_path(folder))
        there = {label for part in splits.values() for row in part.rows for label in row.labels}
        if lost := [label for label in self.indispensable() if label not in there]:
            ids = {clip.id for clips in self.listing.values() for clip in clips if lost[0] in clip.labels}
            first = next(bad for part in splits.values() for bad in part.rejected if bad.id in ids)
            raise DataError(
                f"config.data_dir: class {lost[0]!r} has no usable sound ({first.id}: {first.reason}): fix "
                "its files or remove its folder"
            )

    def _convert_on_beam(self, pending: list[shards.Shard], download_config: Any) -> None:
        """Run the pipeline that TFDS makes from the runner's options, and wait for its end."""
        splits = split_builder.SplitBuilder(
            split_dict=self.info.splits,
            features=self.info.features,
            dataset_size=self.info.dataset_size,
            beam_options=download_config.beam_options,
            beam_runner=download_config.beam_runner,
            max_examples_per_split=None,
            example_writer=writer.ExampleWriter(self.info.file_format),
        )
        with splits.maybe_beam_pipeline():
            engines.run_on_beam(pending, self.recipe, splits.beam_pipeline)

    def _check_converted(self, cut: list[shards.Shard]) -> Mapping[str, list[manifest.Manifest]]:
        """Return the manifests of the shards of each split.

        Raises:
          DataError: too many clips of a split were rejected.
        """
        manifests = {
            split: [manifest.read(shard.manifest) for shard in cut if shard.split == split]
            for split in self.listing
        }
        wholes = {split: manifest.joined(parts) for split, parts in manifests.items()}
        try:
            self._check_shares({split: (whole.rejected, whole.listed) for split, whole in wholes.items()})
        except DataError:
            for shard in cut:
                shard.forget_rejections()
            raise
        return manifests

    def _gather(
        self, split: str, cut: list[shards.Shard], manifests: list[manifest.Manifest]
    ) -> tfds.core.SplitInfo:
        """Link the shards of a split into the unfinished copy and write its manifest."""
        folder, parts = Path(self.data_dir), [shard for shard in cut if shard.split == split]
        manifest.joined(manifests).write(manifest_path(folder, split))
        template = self._get_filename_template(split_name=split)
        for index, shard in enumerate(parts):
            _link(shard.records, Path(template.sharded_filepath(shard_index=index, num_shards=len(parts))))
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(part.rows) for part in manifests],
            num_bytes=sum(shard.records.stat().st_size for shard in parts),
            filename_template=template,
        )


def _checked(clip: Clip, known: frozenset[str], seen: set[str]) -> Clip:
    problem = clip.problem
    if clip.id in seen:
        problem = "listed a second time"
    elif not problem and (unknown := set(clip.labels) - known):
        problem = f"unknown label {min(unknown)!r}"
    seen.add(clip.id)
    return clip if problem == clip.problem else replace(clip, problem=problem)


def _link(staged: Path, final: Path) -> None:
    """Link a staged file into its final place, so that a preparation killed here loses nothing."""
    try:
        os.link(staged, final)
    except OSError:  # a file system without hard links
        shutil.copyfile(staged, final)

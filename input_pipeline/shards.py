"""Shards: a shard is a group of clips that one process converts and stores in one file.

The content of a shard depends only on its clips, so the copy is the same for any number of workers. A
finished shard is kept in the staging folder as a file of records and a manifest. Each is renamed into place
when complete, the manifest last. After an interruption, shards that have a manifest are not converted again.
"""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from tensorflow_datasets.core import example_serializer, file_adapters, writer

from input_pipeline import audio, manifest, storage
from input_pipeline.clip import Clip
from input_pipeline.errors import DataError, shortened_reason

# Sets how much work an interruption loses, and how often the progress bar moves.
CLIPS_PER_SHARD = 256


@dataclass(frozen=True)
class Recipe:
    """How clips become records.

    Attributes:
      sample_rate: stored rate, Hz.
      max_seconds: longer recordings are rejected.
      storage: see `storage.STORAGES`.
      features: features of a record.
    """

    sample_rate: int
    max_seconds: float
    storage: str
    features: tfds.features.FeaturesDict

    def convert(self, clip: Clip) -> tuple[dict[str, Any], manifest.Row]:
        """Return the record of a clip and its row in the manifest.

        Raises:
          audio.AudioError: the clip is to be rejected; the message is the reason.
          OSError, MemoryError: a failure that can be fixed and says nothing about the clip.
        """
        if clip.problem:
            raise audio.AudioError(clip.problem)
        assert clip.sound is not None
        try:
            loaded, sha256 = clip.sound.load(self.max_seconds)
        except audio.TooLong as error:  # here the limit is a key of the config
            raise audio.AudioError(f"longer than config.prepare.max_seconds={self.max_seconds:g}") from error
        resampled = audio.resample(loaded, self.sample_rate).samples
        if clip.seconds is not None:
            resampled = audio.pad_or_crop(resampled, round(clip.seconds * self.sample_rate))
        samples, clipped = audio.to_int16(resampled)
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
        stored = storage.encode(samples, self.sample_rate, self.storage)
        return {"audio": stored, "labels": list(clip.labels), "id": clip.id}, row


@dataclass(frozen=True)
class Shard:
    """Consecutive clips of a split, which go into one file.

    Attributes:
      split: name of the split.
      start: number of clips of the split in earlier shards.
      clips: the clips in the order of storage.
      staging: folder of finished shards.
    """

    split: str
    start: int
    clips: tuple[Clip, ...]
    staging: Path

    @property
    def records(self) -> Path:
        """Path of the staged records."""
        return self.staging / f"{self.split}-{self.start:09d}.array_record"

    @property
    def manifest(self) -> Path:
        """Path of the staged manifest, which exists exactly if the shard is finished."""
        return self.records.with_suffix(".manifest.jsonl")

    def finished(self) -> bool:
        """Return whether the shard is complete; if its files are damaged, remove its manifest."""
        if not self.manifest.exists():
            return False
        try:
            part = manifest.read(self.manifest)
            with array_record_data_source.ArrayRecordDataSource([str(self.records)]) as records:
                whole = len(records) == len(part.rows) and part.listed == len(self.clips)
        except (OSError, ValueError, RuntimeError):
            whole = False
        if not whole:
            self.manifest.unlink()
        return whole

    def forget_rejections(self) -> None:
        """Remove the manifest if decoding rejected clips, to try them again: their files may get fixed."""
        rejected = {source.id for source in manifest.read(self.manifest).rejected}
        if any(clip.id in rejected and not clip.problem for clip in self.clips):
            self.manifest.unlink()


def cut(clips: Mapping[str, Sequence[Clip]], staging: Path) -> list[Shard]:
    """Return the shards of all splits, in the order of the clips."""
    return [
        Shard(split, start, tuple(listed[start : start + CLIPS_PER_SHARD]), staging)
        for split, listed in clips.items()
        for start in range(0, len(listed), CLIPS_PER_SHARD)
    ]


def clips_in(shards: Sequence[Shard]) -> int:
    """Return the number of clips in all of these shards."""
    return sum(len(shard.clips) for shard in shards)


def write(shard: Shard, recipe: Recipe) -> int:
    """Convert the clips of a shard, one in memory at a time; return their number, rejected ones included.

    Raises:
      DataError: a clip cannot be read now. It is not rejected, since finished shards are not converted again.
    """
    rows: list[manifest.Row] = []
    rejected: list[manifest.Rejected] = []
    serializer = example_serializer.ExampleSerializer(recipe.features.get_serialized_info())

    def examples() -> Iterator[tuple[int, bytes]]:
        for key, clip in enumerate(shard.clips, shard.start):
            try:
                record, row = recipe.convert(clip)
            except audio.AudioError as error:
                rejected.append(manifest.Rejected(clip.id, str(error)))
            except (OSError, MemoryError) as error:
                raise DataError(_unread(clip, error)) from error
            else:
                rows.append(row)
                example = serializer.get_tf_example(recipe.features.encode_example(record))
                # Without `deterministic`, the order of a record's fields would differ between processes.
                yield key, example.SerializeToString(deterministic=True)

    with _renamed(shard.records) as path:
        # TFDS's ShardWriter would hold all clips of a shard in memory to count them.
        writer.ExampleWriter(file_adapters.FileFormat.ARRAY_RECORD).write(path, examples())
    with _renamed(shard.manifest) as path:
        manifest.Manifest(tuple(rows), tuple(rejected)).write(path)
    return len(shard.clips)


def _unread(clip: Clip, error: OSError | MemoryError) -> str:
    """Return the message that says why the run stops at a clip, and the fix."""
    file = clip.sound.file if clip.sound else None
    named = file or getattr(error, "filename", None) or clip.id
    if isinstance(error, MemoryError):
        reason, mend = "out of memory", "lower config.prepare.workers or config.prepare.max_seconds"
    else:
        reason, mend = shortened_reason(error.strerror or error), "fix or remove it"
    return f"cannot read {named}: {reason}: {mend}, then run this again: finished shards are kept"


@contextlib.contextmanager
def _renamed(final: Path) -> Iterator[Path]:
    """Yield a temporary path next to `final`; it is renamed to `final` if the block succeeds.

    Two containers that write to one disk may have the same process numbers, and a disk without locks does
    not keep them apart.
    """
    unfinished = final.with_name(f".{final.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)

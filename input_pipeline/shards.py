"""A shard: the clips that are stored in one file, converted by whichever process takes them.

What a shard holds depends on its clips alone, so the copy is the same for any number of workers. A finished
shard lies in the staging folder as a file of records and a manifest, each renamed into place when
whole, the manifest last: where it is, a killed preparation goes on behind it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source
from tensorflow_datasets.core import example_serializer, file_adapters, writer

from input_pipeline import audio, manifest, storage
from input_pipeline.datasets.clip import Clip
from input_pipeline.errors import DataError

# How much is lost when a preparation is killed, and how often its bar moves.
CLIPS_PER_SHARD = 256


@dataclass(frozen=True)
class Recipe:
    """How clips become records.

    Attributes:
      sample_rate: stored rate, Hz.
      max_seconds: longer recordings are rejected.
      storage: see `storage.STORAGES`.
      features: of a record.
    """

    sample_rate: int
    max_seconds: float
    storage: str
    features: tfds.features.FeaturesDict

    def convert(self, clip: Clip) -> tuple[dict[str, Any], manifest.Row]:
        """The record of a clip, and its row in the manifest.

        Raises:
          audio.AudioError: with the reason why the clip is to be rejected.
          OSError, MemoryError: what may be mended, and then the clip is good.
        """
        if clip.problem:
            raise audio.AudioError(clip.problem)
        assert clip.sound is not None
        loaded, sha256 = clip.sound.load(self.max_seconds)
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
    """Clips of a split, from the `start`-th on, on their way into one file.

    Attributes:
      split: name of the split.
      start: how many clips of the split are in earlier shards.
      clips: in the order of storage.
      staging: folder of finished shards.
    """

    split: str
    start: int
    clips: tuple[Clip, ...]
    staging: Path

    @property
    def records(self) -> Path:
        """Where the records are staged."""
        return self.staging / f"{self.split}-{self.start:09d}.array_record"

    @property
    def manifest(self) -> Path:
        """Where the manifest is staged; it is there exactly when the shard is finished."""
        return self.records.with_suffix(".manifest.jsonl")

    def finished(self) -> bool:
        """Whether it was written to the end; what a power cut left half is not."""
        if not self.manifest.exists():
            return False
        try:
            part = manifest.read(self.manifest)
            with array_record_data_source.ArrayRecordDataSource([str(self.records)]) as records:
                whole = len(records) == len(part.rows) and part.listed == len(self.clips)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError):
            whole = False
        if not whole:
            self.manifest.unlink()
        return whole

    def forget_rejections(self) -> None:
        """Has the shard converted again where clips were tried and rejected: their files may be mended."""
        rejected = {source.id for source in manifest.read(self.manifest).rejected}
        if any(clip.id in rejected and not clip.problem for clip in self.clips):
            self.manifest.unlink()


def cut(clips: Mapping[str, Sequence[Clip]], staging: Path) -> list[Shard]:
    """The shards of all splits, in the order of the clips."""
    return [
        Shard(split, start, tuple(listed[start : start + CLIPS_PER_SHARD]), staging)
        for split, listed in clips.items()
        for start in range(0, len(listed), CLIPS_PER_SHARD)
    ]


def write(shard: Shard, recipe: Recipe) -> int:
    """Converts the clips of a shard, one in memory at a time, and returns how many were listed.

    Raises:
      DataError: a clip cannot be read now. It is not rejected: a staged shard is not looked at again.
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
                # Else the order of a record's fields would differ between processes.
                yield key, example.SerializeToString(deterministic=True)

    with _renamed(shard.records) as path:
        # TFDS' ShardWriter would keep all clips of a shard in memory to count them.
        writer.ExampleWriter(file_adapters.FileFormat.ARRAY_RECORD).write(path, examples())
    with _renamed(shard.manifest) as path:
        manifest.Manifest(tuple(rows), tuple(rejected)).write(path)
    return len(shard.clips)


def _unread(clip: Clip, error: OSError | MemoryError) -> str:
    """Why the run stops at a clip, and the mend."""
    file = clip.sound.file if clip.sound else None
    named = file or getattr(error, "filename", None) or clip.id
    if isinstance(error, MemoryError):
        reason, mend = "no memory", "lower config.prepare.workers or config.prepare.max_seconds"
    else:
        reason, mend = " ".join((error.strerror or str(error)).split()), "mend or remove it"
    return f"cannot read {named}: {reason}: {mend}, then run this again: finished shards are kept"


@contextlib.contextmanager
def _renamed(final: Path) -> Iterator[Path]:
    """A temporary path beside the final one, which it becomes when the block ends well."""
    unfinished = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)

"""Estimate the cost of preparing a data set, by preparing a sample of it in every storage."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from array_record.python import array_record_data_source

from input_pipeline import manifest, storage
from input_pipeline.clip import Clip
from input_pipeline.generate import quiet_tfds
from input_pipeline.plan import Plan
from input_pipeline.shards import Recipe, Shard, write


@dataclass(frozen=True)
class Cost:
    """Cost of one storage, per usable clip of the sample.

    Attributes:
      bytes: size on disk.
      prepare_seconds: time of one core to decode, resample, encode and write a clip, without waiting.
      read_seconds: time of one core to read it again.
    """

    bytes: float
    prepare_seconds: float
    read_seconds: float


@dataclass(frozen=True)
class Estimate:
    """Size of a data set, and the cost of its copy.

    Attributes:
      listed: number of clips of each split.
      missing: how many of them are rejected before decoding, such as absent files.
      sampled: number of clips that were prepared for the estimate.
      unusable: how many of those were rejected.
      seconds: mean length of a usable clip.
      costs: cost of each storage.
    """

    listed: Mapping[str, int]
    missing: Mapping[str, int]
    sampled: int
    unusable: int
    seconds: float
    costs: Mapping[str, Cost]

    @property
    def usable(self) -> float:
        """Expected number of clips in the copy."""
        there = sum(self.listed.values()) - sum(self.missing.values())
        return there * (1 - self.unusable / self.sampled) if self.sampled else 0.0


def estimate(plan: Plan, *, sample: int = 64) -> Estimate:
    """List a data set and prepare evenly spaced clips of it, in a temporary folder that is removed.

    Args:
      plan: the copy whose cost is asked.
      sample: largest number of clips to prepare.

    Raises:
      DataError: as `prepare`.
    """
    with quiet_tfds():
        builder = plan.builder_class(data_dir=plan.root, config=plan.config)
    builder.check_uses()
    there = [clip for clips in builder.listing.values() for clip in clips if not clip.problem]
    places = np.unique(np.linspace(0, len(there) - 1, min(sample, len(there))).astype(int))
    clips = [there[place] for place in places]
    parts: dict[str, manifest.Manifest] = {}
    costs = {}
    for kind in storage.STORAGES:
        recipe = dataclasses.replace(builder.recipe, storage=kind, features=builder.features(kind))
        parts[kind], costs[kind] = _measure(clips, recipe)
    rows = parts["pcm"].rows
    return Estimate(
        listed={split: len(clips) for split, clips in builder.listing.items()},
        missing={split: sum(bool(c.problem) for c in clips) for split, clips in builder.listing.items()},
        sampled=len(clips),
        unusable=len(clips) - len(rows),
        seconds=float(np.mean([row.samples for row in rows])) / builder.recipe.sample_rate if rows else 0.0,
        costs=costs,
    )


def _measure(clips: Sequence[Clip], recipe: Recipe) -> tuple[manifest.Manifest, Cost]:
    with tempfile.TemporaryDirectory() as folder:
        shard = Shard("sample", 0, tuple(clips), Path(folder))
        begin = time.process_time()
        write(shard, recipe)
        prepared = time.process_time()
        part = manifest.read(shard.manifest)
        with array_record_data_source.ArrayRecordDataSource([str(shard.records)]) as records:
            for record in records:
                storage.decode(recipe.features.deserialize_example_np(record)["audio"])
        read = time.process_time()
        count = max(1, len(part.rows))
        return part, Cost(
            shard.records.stat().st_size / count, (prepared - begin) / count, (read - prepared) / count
        )

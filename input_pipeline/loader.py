"""The grain pipeline from stored clips to host batches: read, crop, batch, distribute over processes.

Every batch depends only on the seed and its step. Clips are cropped before batches are distributed over
processes. The local batches of P processes, concatenated, therefore equal the batch of a single process.
"""

import functools
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from input_pipeline.audio import pad_or_crop
from input_pipeline.errors import DataError
from input_pipeline.prepared import Prepared
from input_pipeline.sampling import ORDERS, SAMPLINGS

# Number of draws of an "endless" order: enough for a thousand years at 30 a second.
_ENDLESS = 1 << 40

Batch = dict[str, np.ndarray]


def train_batches(
    prepared: Prepared,
    split: str,
    *,
    crop_samples: int,
    batch_size: int,
    seed: int,
    sampling: str = "uniform",
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    prefetch: int = 8,
) -> grain.DatasetIterator[Batch]:
    """Return endless training batches of random crops, in the order that `sampling` names.

    Args:
      prepared: the data set.
      split: name of a split, or several as in 'fold2+fold3'.
      crop_samples: length of a crop in samples; shorter clips are padded with zeros at the end.
      batch_size: global batch size, a multiple of process_count.
      seed: seed of the order and of the crops.
      sampling: 'uniform', every clip once per epoch; 'balanced', every class equally often; or 'weighted',
        random draws that favour clips of rare classes. See `sampling` for the schemes.
      start_step: number of the first batch; batch k is the same for any start.
      process_index: index of this process.
      process_count: number of processes that share a batch.
      num_threads: number of threads that read.
      prefetch: number of batches to read ahead.

    Returns:
      Iterator of {"audio": int16 (batch_size / process_count, crop_samples),
      "labels": float32 (batch_size / process_count, classes)}. Close it with `.close()`.

    Raises:
      DataError: unknown split or sampling, or a batch size that does not divide among the processes.
    """
    local = _local_batch_size(batch_size, process_count)
    crop = functools.partial(_random_crop, crop_samples=crop_samples, num_labels=len(prepared.labels))
    examples = _ordered(prepared, split, sampling, seed).random_map(crop)
    shares = examples.batch(local, drop_remainder=True)
    batches = shares[start_step * process_count + process_index :: process_count]
    return _read(batches, num_threads, prefetch)


def _ordered(prepared: Prepared, split: str, sampling: str, seed: int) -> grain.MapDataset:
    """Return the clips of a split, endlessly, in the order that `sampling` names."""
    source = prepared.source(split)
    if sampling == "uniform":
        # repeat() reshuffles: grain derives each epoch's order from the seed and the epoch.
        return grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if sampling not in ORDERS:
        raise DataError(f"config.sampling must be one of {', '.join(SAMPLINGS)}, not {sampling!r}")
    order = ORDERS[sampling](prepared.clips_by_class(split), seed)
    return grain.MapDataset.range(_ENDLESS).seed(seed).map(lambda draw: source[order(draw)])


def eval_batches(
    prepared: Prepared,
    split: str,
    *,
    crop_samples: int,
    max_crops: int = 16,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 4,
    prefetch: int = 8,
) -> grain.DatasetIterator[Batch]:
    """Return batches that hold every clip of a split once, as evenly spaced crops; the last is padded.

    The arguments are those of `train_batches`, and one more.

    Args:
      max_crops: largest number of crops per clip; longer clips have gaps between their crops.

    Returns:
      Iterator of {"audio": int16 (batch_size / process_count, crop_samples), "mask": bool (batch_size /
      process_count,), "clip": int32 (batch_size / process_count,)}. "clip" is the index of the clip in the
      split. "mask" is False for padding, where "clip" is 0. Every process gets the same number of batches.
      Close it with `.close()`.

    Raises:
      DataError: unknown split, or a batch size that does not divide among the processes.
    """
    local = _local_batch_size(batch_size, process_count)
    lengths = [row.samples for row in prepared.manifest(split).rows]
    crops = crop_starts(lengths, crop_samples, max_crops)
    read = functools.partial(
        _read_crop, source=prepared.source(split), crops=crops, crop_samples=crop_samples
    )
    filled = -(-len(crops) // batch_size) * batch_size
    batches = grain.MapDataset.range(filled).map(read).batch(local)[process_index::process_count]
    return _read(batches, num_threads, prefetch)


def crop_starts(lengths: Sequence[int], crop_samples: int, max_crops: int) -> np.ndarray:
    """Return the crops that cover clips of these lengths, int32 (crops, 2): clip index, first sample."""
    crops = []
    for clip, length in enumerate(lengths):
        count = min(max(1, -(-length // crop_samples)), max_crops)
        starts = np.rint(np.linspace(0, max(0, length - crop_samples), count)).astype(np.int32)
        crops += [(clip, start) for start in starts]
    return np.array(crops, np.int32).reshape(-1, 2)


def _random_crop(
    example: dict[str, Any], rng: np.random.Generator, *, crop_samples: int, num_labels: int
) -> Batch:
    audio = example["audio"]
    start = rng.integers(max(0, len(audio) - crop_samples), endpoint=True)
    labels = np.zeros(num_labels, np.float32)
    labels[example["labels"]] = 1
    return {"audio": pad_or_crop(audio[start:], crop_samples), "labels": labels}


def _read_crop(index: int, *, source: Sequence[Any], crops: np.ndarray, crop_samples: int) -> Batch:
    real = index < len(crops)
    clip, start = crops[index] if real else (0, 0)
    audio = source[clip]["audio"] if real else np.zeros(0, np.int16)
    return {
        "audio": pad_or_crop(audio[start:], crop_samples),
        "mask": np.asarray(real),
        "clip": np.asarray(clip, np.int32),
    }


def _local_batch_size(batch_size: int, process_count: int) -> int:
    if batch_size <= 0 or batch_size % process_count:
        raise DataError(
            f"config.batch_size={batch_size} is not a multiple of the process count, {process_count}"
        )
    return batch_size // process_count


def _read(batches: grain.MapDataset, num_threads: int, prefetch: int) -> grain.DatasetIterator[Batch]:
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(batches.to_iter_dataset(options))

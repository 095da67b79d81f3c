"""Storage of clips in a prepared copy: as int16 samples, or as FLAC, which is smaller and slower to read.

Both are lossless, so the choice changes no batch. `python -m rann_jax.prepare --dry-run` prints their costs.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import tensorflow_datasets as tfds

from input_pipeline.errors import DataError

STORAGES = ("pcm", "flac")


def check_storage(storage: str) -> None:
    """Raise DataError unless the name is one of STORAGES."""
    if storage not in STORAGES:
        raise DataError(f"config.prepare.storage={storage!r} must be one of {', '.join(STORAGES)}")


def feature(storage: str) -> tfds.features.Tensor:
    """Return the type of a record's audio: int16 samples (n,), or the bytes of a FLAC file, uint8 (m,)."""
    dtype = np.int16 if storage == "pcm" else np.uint8
    # Encoded as bytes: the default, a list of varints, is six times slower to read.
    return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES)


def encode(samples: np.ndarray, sample_rate: int, storage: str) -> np.ndarray:
    """Return int16 samples (n,) in their stored form."""
    if storage == "pcm":
        return samples
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return np.frombuffer(file.getvalue(), np.uint8)


def decode(stored: np.ndarray) -> np.ndarray:
    """Return the samples that were given to `encode`; the array's type tells how they were stored."""
    if stored.dtype == np.int16:
        return stored
    samples, _ = soundfile.read(io.BytesIO(stored.tobytes()), dtype="int16")
    return samples


@dataclass(frozen=True)
class Decoded(Sequence[dict[str, Any]]):
    """Records by index or slice, with `audio` as int16 samples (n,) for either storage; it can be pickled."""

    records: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [_with_samples(record) for record in self.records[index]]
        return _with_samples(self.records[index])


def _with_samples(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "audio": decode(record["audio"])}

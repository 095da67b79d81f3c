"""Sound in HDF5 files as packed by PANNs and PaSST.

PANNs (github.com/qiuqiangkong/audioset_tagging_cnn, utils/dataset.py): `audio_name`, fixed-length bytes;
`waveform` int16 (clips, samples), zero-padded; `target` bool (clips, classes); attribute `sample_rate`, Hz.
Rows of files that were missing when it was packed have no name. PaSST (github.com/kkoutini/PaSST, audioset/):
`audio_name`; `mp3`, the bytes of a file, uint8 of variable length; `target` packed, eight classes per byte.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline import audio
from input_pipeline.clip import Packed, Sound
from input_pipeline.errors import DataError, shortened_reason

_MAX_ROWS = 1 << 22  # AudioSet has half as many
_MAX_NAME_BYTES = 256
_MAX_CHUNK_BYTES = 1 << 28  # of data that is decompressed at once
_MAX_RATE = 384000  # Hz
_BLOCK_ROWS = 4096
_SOUNDS = ("waveform", "mp3")


@dataclass(frozen=True)
class Row(Sound):
    """A row of a file's `waveform` or `mp3`."""

    path: Path
    dataset: str
    row: int

    @property
    def padded(self) -> bool:
        """Whether shorter clips were padded with zeros."""
        return self.dataset == "waveform"

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the samples, or the decoded bytes."""
        file = _open(self.path)
        try:
            rate = _rate(file)
            if self.padded and file[self.dataset].shape[1] > max_seconds * rate:
                raise audio.TooLong(f"longer than max_seconds={max_seconds:g}")
            stored = np.ascontiguousarray(file[self.dataset][self.row])
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # a system error; for broken chunks h5py raises OSError without an errno
            raise audio.AudioError(f"not readable: {shortened_reason(error)}") from error
        sha256 = hashlib.sha256(stored.tobytes()).hexdigest()
        if self.dataset == "mp3":
            return audio.decode(stored.tobytes(), max_seconds=max_seconds), sha256
        return audio.Audio(audio.from_int16(stored), rate, rate, channels=1), sha256


def rows(path: Path, classes: int) -> Iterator[Packed]:
    """Yield the clips of a file, each with the indices of its classes; there are `classes` in total.

    Raises:
      DataError: h5py is not installed, or the file has neither layout.
    """
    try:
        file = _open(path)
        dataset = next((name for name in _SOUNDS if name in file), "")
        _check(path, file, dataset)
        targets = file.get("target")
        packed = targets is not None and _bits(path, targets, classes)
        for start in range(0, len(file["audio_name"]), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            names = file["audio_name"][block]
            own = [None] * len(names) if targets is None else [_indices(t, packed) for t in targets[block]]
            for row, (name, labels) in enumerate(zip(names, own, strict=True), start):
                if name:
                    yield Packed(name.decode(errors="replace"), Row(path, dataset, row), labels, "")
    except DataError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is not a complete HDF5 file ({shortened_reason(error)})") from error


@functools.lru_cache(maxsize=8)
def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f'{path} needs h5py: pip install -e ".[hdf5]"') from error
    return h5py.File(path, "r")


def _rate(file: Any) -> int:
    """Return a file's attribute sample_rate, Hz; 0 if it has none, or no rate in it."""
    rate = np.asarray(file.attrs.get("sample_rate", 0))
    is_rate = rate.size == 1 and rate.dtype.kind in "iuf" and 1 <= rate.item() <= _MAX_RATE
    return int(rate.item()) if is_rate else 0


def _check(path: Path, file: Any, dataset: str) -> None:
    """Raise DataError if a file has another layout, refers to other files or would fill the memory."""
    import h5py

    def refuse(reason: str) -> None:
        raise DataError(f"{path}: {reason}: expected the layout of PANNs or PaSST")

    if not dataset or "audio_name" not in file:
        refuse("it lacks audio_name, or both waveform and mp3")
    for name in {"audio_name", "target", dataset} & set(file):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            refuse(f"{name} is a link")
        stored = file[name]
        if not isinstance(stored, h5py.Dataset) or stored.external or stored.is_virtual:
            refuse(f"{name} is not stored in this file")
        if not stored.shape or len(stored) != len(file["audio_name"]) or len(stored) > _MAX_ROWS:
            refuse(f"{name} has the unexpected shape {stored.shape}")
        if stored.chunks and np.prod(stored.chunks, dtype=float) * stored.dtype.itemsize > _MAX_CHUNK_BYTES:
            refuse(f"{name} has chunks of more than {_MAX_CHUNK_BYTES} bytes")
    names, sound = file["audio_name"], file[dataset]
    if names.dtype.kind != "S" or names.dtype.itemsize > _MAX_NAME_BYTES or names.ndim != 1:
        refuse("audio_name does not hold names")
    if dataset == "waveform":
        if sound.dtype != np.int16 or sound.ndim != 2 or not _rate(file):
            refuse("waveform is not int16 (clips, samples) with the attribute sample_rate")
    elif h5py.check_vlen_dtype(sound.dtype) != np.uint8 or sound.ndim != 1:
        refuse("mp3 does not hold bytes of variable length")


def _bits(path: Path, targets: Any, classes: int) -> bool:
    """Return whether targets hold eight classes per byte; otherwise they hold one per value.

    The width decides, not the type, because 0 and 1 are often stored as uint8.

    Raises:
      DataError: the targets have neither form.
    """
    width = targets.shape[1] if targets.ndim == 2 else 0
    if width == classes:
        return False
    if width == -(-classes // 8) and targets.dtype == np.uint8:
        return True
    raise DataError(
        f"{path}: target has the shape {targets.shape} and type {targets.dtype}: expected {classes} columns, "
        f"or uint8 and {-(-classes // 8)} columns of packed bits: remove target, or "
        "set config.dataset.classes"
    )


def _indices(target: np.ndarray, packed: bool) -> tuple[str, ...]:
    """Return the indices of the classes in a row, as text."""
    return tuple(map(str, np.flatnonzero(np.unpackbits(target) if packed else target)))

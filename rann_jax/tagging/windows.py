"""Turn a stream of blocks of sound into windows of one size, in bounded memory."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

RESAMPLER_BLOCK = 1 << 16  # samples; soxr's stream keeps a copy of its input


def resampled(blocks: Iterable[np.ndarray], source_rate: int, rate: int) -> Iterator[np.ndarray]:
    """Resample blocks (n,) from `source_rate` to `rate` Hz with soxr's HQ filter; yield float32 blocks.

    Even the shortest sound yields at least one sample.
    """
    if source_rate == rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(source_rate, rate, num_channels=1, dtype="float32", quality="HQ")
    taken = given = 0
    for block in blocks:
        taken += len(block)
        for start in range(0, len(block), RESAMPLER_BLOCK):
            piece = np.ascontiguousarray(block[start : start + RESAMPLER_BLOCK], np.float32)
            made = stream.resample_chunk(piece)
            given += len(made)
            yield made
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    yield rest if given or rest.size or not taken else np.zeros(1, np.float32)


def sliding(blocks: Iterable[np.ndarray], size: int, hop: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield windows every `hop` samples; the last one ends with the sound, so that all of it is heard.

    Args:
      blocks: consecutive parts (n,) of one sound, of any lengths.
      size: samples in a window.
      hop: samples between the starts of windows, at most `size`.

    Yields:
      (start, stop, window): samples [start, stop) of the sound, in a window (size,). A sound shorter than a
      window gives one window, padded with zeros at its end; an empty sound gives none.

    Raises:
      ValueError: the hop is not between 1 and `size`.

    >>> [(a, b) for a, b, _ in sliding([np.arange(3.0), np.arange(4.0)], size=4, hop=2)]
    [(0, 4), (2, 6), (3, 7)]
    """
    if not 1 <= hop <= size:
        raise ValueError(f"windows of {size} samples need a hop of 1 sample up to their length, not {hop}")
    # `kept` starts at sample `origin` and has at least the last `size` samples, for the last window.
    kept, origin, start = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        kept = np.concatenate([kept, np.asarray(block, np.float32)])
        while start + size <= origin + len(kept):
            yield start, start + size, kept[start - origin : start - origin + size].copy()
            start += hop
        drop = max(0, min(start - origin, len(kept) - size))
        kept, origin = kept[drop:], origin + drop
    total = origin + len(kept)
    if 0 < total < size:
        yield 0, total, np.pad(kept, (0, size - total))
    elif start and start - hop + size < total:
        yield total - size, total, kept[-size:].copy()


def batched(windows: Iterable[tuple[int, int, np.ndarray]], size: int) -> Iterator[tuple[list[int], ...]]:
    """Group windows: (starts, stops, [windows]), each of at most `size` items."""
    iterator = iter(windows)
    while group := list(itertools.islice(iterator, size)):
        yield tuple(map(list, zip(*group, strict=True)))

"""What counts as a sound: checks of samples and rates, with errors that say how to mend them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from input_pipeline.audio import LOUDEST, RATES, FullScale, from_int16
from rann_jax.features.signal import number


def check_rate(sample_rate: Any) -> None:
    """Raise ValueError unless the rate is a number of Hz within RATES."""
    if not RATES[0] <= number("sample_rate", sample_rate) <= RATES[1]:
        raise ValueError(f"sample_rate={sample_rate}: it must be between {RATES[0]} and {RATES[1]} Hz")


def check_finite(windows: np.ndarray) -> None:
    """Raise ValueError if a sample of floating windows is NaN or infinite."""
    if np.issubdtype(windows.dtype, np.floating) and not np.isfinite(windows).all():
        raise ValueError("windows have NaN or infinite samples")


def checked(wave: np.ndarray) -> np.ndarray:
    """Return a whole sound as float32 (N,), full scale +-1.

    Raises:
      ValueError: it is empty, or `checked_blocks` refuses it.
    """
    wave = _samples(wave)
    if not wave.size:
        raise _not_mono(wave)
    [sound] = checked_blocks([wave])
    return sound


def checked_blocks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the blocks of a sound as `checked_block` returns them.

    Raises:
      ValueError: `checked_block` refuses a block; or, at the end, more of all samples exceed full scale than
        in a file that `input_pipeline.audio` accepts.
    """
    scale = FullScale()
    for block in blocks:
        sound = checked_block(block)
        scale.add(np.abs(sound))
        yield sound
    if scale.exceeded:
        raise ValueError(
            f"the sound: {scale.exceeded}: divide them by their integer scale, such as 32768, or give int16"
        )


def checked_block(block: np.ndarray) -> np.ndarray:
    """Return a possibly empty block of a sound as float32 (n,), full scale +-1.

    Raises:
      ValueError: it is not (n,), neither floating nor int16, not finite, or absurdly loud.
    """
    block = _samples(block)
    if block.ndim != 1:
        raise _not_mono(block)
    if np.issubdtype(block.dtype, np.int16):  # in any byte order
        return from_int16(block)
    if not np.issubdtype(block.dtype, np.floating):
        raise ValueError(
            f"the sound must be floating-point or int16, not {block.dtype}{_scaling(block.dtype)}"
        )
    peak = float(np.abs(block).max(initial=0))  # a Python float, since LOUDEST overflows float16
    if not np.isfinite(peak):
        raise ValueError("the sound has NaN or infinite samples")
    if peak > LOUDEST:
        raise ValueError(f"the sound has samples of {peak:.0e} times full scale: scale it to -1..1")
    return block.astype(np.float32, copy=False)


def _samples(wave: Any) -> np.ndarray:
    if isinstance(wave, str | Path):
        raise ValueError(
            f"{str(wave)!r} is a path, not samples: tag_file, timeline_file and stream_file take paths"
        )
    return np.asarray(wave)


def _scaling(dtype: np.dtype) -> str:
    """Return the end of a message that says how integers become floating, full scale +-1."""
    if dtype == np.uint8:  # unsigned PCM has its zero in the middle
        return ": use (wave - 128.0) / 128"
    if not np.issubdtype(dtype, np.signedinteger):
        return ""
    if dtype.itemsize == 8:  # of a list, or of a sum: no recording has 64 bits
        return ": divide by the full scale of its samples, such as 32768 for 16 bits"
    return f": use wave / 2**{8 * dtype.itemsize - 1}"


def _not_mono(wave: np.ndarray) -> ValueError:
    mend = ""
    if wave.ndim == 0:
        mend = ": give the samples, then their rate in Hz"
    elif wave.ndim == 2 and wave.size:
        scale = " / 32768" if wave.dtype == np.int16 else ""  # the mean of integers is floating
        mend = f": average the channels, wave.mean(axis={int(wave.shape[0] > wave.shape[1])}){scale}"
    return ValueError(f"the sound must be mono (N,) and not empty, not of shape {wave.shape}{mend}")

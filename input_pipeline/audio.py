"""From the bytes of a sound file to mono int16 at the wanted rate, or a reason why not.

Sample values: int16 is float times 32768, so that 16-bit PCM passes through unchanged.
"""

import dataclasses
import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

# Longer than any clip of the data sets served here; a file beyond it is more likely a mistake, and
# decoding it would only fill the memory.
MAX_SECONDS = 600.0

_BLOCK_FRAMES = 1 << 18


class AudioError(Exception):
    """A recording that cannot be used; the message is the reason, fit for a manifest."""


@dataclasses.dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
      samples: float32 (n,), mono, full scale +-1.
      rate: sampling rate of the samples, Hz.
      source_rate: sampling rate of the file, Hz.
      channels: number of channels of the file.
    """

    samples: np.ndarray
    rate: int
    source_rate: int
    channels: int


def decode(source: str | Path | bytes, *, max_seconds: float = MAX_SECONDS) -> Audio:
    """Decodes a sound file (whatever libsndfile reads: wav, flac, ogg, mp3, ...) to mono.

    The channels are averaged. Reading stops as soon as the limit is passed, whatever the header
    says.

    Args:
      source: path of a file, or its bytes.
      max_seconds: the longest recording accepted, seconds.

    Raises:
      AudioError: undecodable, empty, longer than max_seconds, or NaN or infinite samples.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with soundfile.SoundFile(opened) as file:
            samples = _read_mono(file, max_seconds)
            audio = Audio(samples, file.samplerate, file.samplerate, file.channels)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError) as error:
        # TypeError: soundfile takes a .raw name for headerless PCM and asks for its format.
        raise AudioError(f"not decodable: {_one_line(error)}") from error
    if not samples.size:
        raise AudioError("no samples")
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    return audio


def _read_mono(file: soundfile.SoundFile, max_seconds: float) -> np.ndarray:
    limit = int(max_seconds * file.samplerate)
    blocks: list[np.ndarray] = []
    total = 0
    # Blocks hold a bounded number of values, however many channels a header claims.
    frames = max(1, _BLOCK_FRAMES // file.channels)
    while (block := file.read(frames, dtype="float32", always_2d=True)).size:
        total += len(block)
        if total > limit:
            raise AudioError(f"longer than max_seconds={max_seconds:g}")
        blocks.append(block.mean(axis=1))
    if not blocks:
        return np.zeros(0, np.float32)
    return np.concatenate(blocks)


def _one_line(error: Exception) -> str:
    # libsndfile quotes the whole stream object or path first; what matters comes after the colon.
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def resample(audio: Audio, rate: int) -> Audio:
    """Resamples to `rate` Hz with soxr's HQ filter; at that rate already, it is returned as is."""
    if audio.rate == rate:
        return audio
    samples = soxr.resample(audio.samples, audio.rate, rate, quality="HQ")
    if not samples.size:
        raise AudioError(f"no samples left at {rate} Hz")
    return dataclasses.replace(audio, samples=samples.astype(np.float32), rate=rate)


def to_int16(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """Rounds float samples (n,) to int16 (n,); returns them and how many were out of range."""
    scaled = np.rint(samples * np.float32(32768))
    clipped = np.count_nonzero((scaled > 32767) | (scaled < -32768))
    return np.clip(scaled, -32768, 32767).astype(np.int16), int(clipped)


def pad_or_crop(samples: np.ndarray, length: int) -> np.ndarray:
    """Cuts samples (n,) to (length,), or pads them with zeros at the end."""
    if len(samples) >= length:
        return samples[:length]
    return np.pad(samples, (0, length - len(samples)))

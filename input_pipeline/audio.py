"""Decode sound files to mono int16 at a given sample rate, or say why they are unusable.

int16 values are float values times 32768, so 16-bit PCM passes through unchanged.
"""

import dataclasses
import io
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

from input_pipeline import ogg
from input_pipeline.errors import shortened_reason
from input_pipeline.truncation import truncation

# Longer than any clip of the data sets supported here. A longer file is more likely a mistake, and decoding
# it would only fill the memory.
MAX_SECONDS = 600.0

# Suffixes to look for in a folder. Whether a file can be decoded is found by trying; .m4a, for one, cannot.
SUFFIXES = frozenset(
    [
        ".aif",
        ".aifc",
        ".aiff",
        ".au",
        ".caf",
        ".flac",
        ".m4a",
        ".mp3",
        ".oga",
        ".ogg",
        ".opus",
        ".rf64",
        ".snd",
        ".w64",
        ".wav",
        ".wave",
    ]
)

# Suffixes of sound that nothing here decodes, from telephones, browsers and video.
UNREADABLE = frozenset(
    [
        ".3gp",
        ".aac",
        ".ac3",
        ".amr",
        ".ape",
        ".m4b",
        ".mka",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpc",
        ".ra",
        ".webm",
        ".wma",
        ".wv",
    ]
)

# Kinds that everything here reads, for messages; libsndfile reads more.
_READ = "wav, flac, ogg, opus, mp3 and aiff"
_SYSTEM = 2  # libsndfile's code for errors of the file system

RATES = (1000, 768_000)  # Hz (ours): no recorded sound is below, no sound card above
_BLOCK_FRAMES = 1 << 18
LOUDEST = 1e10  # (ours) integers stored as floats are below; above, the power would be infinite in float32
# Largest share of non-zero float samples that may exceed full scale (ours). Loud masters have few of these.
# In integers that were made floats without scaling nearly all do, and clipping would turn the sound into a
# square wave.
_MAX_BEYOND = 0.1
_FLOATS = ("FLOAT", "DOUBLE")
_OPEN_FRAMES = 1 << 62  # if a header leaves the length open, libsndfile's count is near 2**63


class AudioError(Exception):
    """A recording that cannot be used; the message is the reason, as written to a manifest."""


class TooLong(AudioError):
    """A recording that is longer than the caller accepts."""


class _Content(io.BytesIO):
    """The bytes of a file, for libsndfile, which may seek before their beginning if a header is broken."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seek if possible, otherwise stay: an error in a C callback could only be printed, not raised."""
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


@dataclasses.dataclass(frozen=True)
class Audio:
    """A decoded recording.

    Attributes:
      samples: float32 (n,), mono, full scale +-1.
      rate: sample rate of the samples, Hz.
      source_rate: sample rate of the file, Hz.
      channels: number of channels of the file.
    """

    samples: np.ndarray
    rate: int
    source_rate: int
    channels: int


def decode(source: str | Path | bytes, *, max_seconds: float = MAX_SECONDS) -> Audio:
    """Decode a sound file (any that libsndfile reads: wav, flac, ogg, mp3, ...) to mono.

    The channels are averaged. Reading stops as soon as the limit is exceeded, whatever the header
    says.

    Args:
      source: path of a file, or its bytes.
      max_seconds: the longest recording accepted, seconds.

    Raises:
      AudioError: the file is empty, longer than max_seconds (TooLong), or rejected by `stream`.
    """
    with stream(source) as opened:
        samples = _joined(opened, max_seconds)
    if not samples.size:
        raise AudioError("no samples")
    return Audio(samples, opened.rate, opened.rate, opened.channels)


def _joined(opened: "Stream", max_seconds: float) -> np.ndarray:
    limit = int(max_seconds * opened.rate)
    blocks: list[np.ndarray] = []
    total = 0
    for block in opened.blocks:
        total += len(block)
        if total > limit:
            raise TooLong(f"longer than max_seconds={max_seconds:g}")
        blocks.append(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def open_sound(source: str | Path | bytes) -> soundfile.SoundFile:
    """Open a sound file with any name, or the bytes of one.

    Raises:
      AudioError: the file is of a kind that is not read; the message says how to convert it.
      Exception: all other errors are those of soundfile.
    """
    if isinstance(source, bytes):
        return soundfile.SoundFile(_Content(source))
    try:
        # The name is passed as bytes, because soundfile rejects a str whose name is not UTF-8.
        return soundfile.SoundFile(os.fsencode(source) if os.name == "posix" else source)
    except soundfile.LibsndfileError as error:
        advice = how_to_convert(Path(source).name)
        if not advice or error.code == _SYSTEM:
            raise
        raise AudioError(f"not decodable: {advice}") from error


def how_to_convert(name: str) -> str:
    """Return what to do with a file of a kind that is not read; '' if its suffix is not of such a kind.

    >>> how_to_convert("a.m4a")
    '.m4a is not read, but wav, flac, ogg, opus, mp3 and aiff are: convert it with ffmpeg -i a.m4a a.wav'
    """
    path = Path(name)
    if path.suffix.lower() not in UNREADABLE | {".m4a"}:
        return ""
    command = shlex.join(["ffmpeg", "-i", name, str(path.with_suffix(".wav"))])
    return f"{path.suffix} is not read, but {_READ} are: convert it with {command}"


def _check_whole(source: str | Path | bytes) -> None:
    """Raise AudioError if a file is shorter than its container states, or a page of it is damaged."""
    with _decoding(), io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        lacking = truncation(file)
        file.seek(0)
        damaged = ogg.damage(file) if not lacking and file.read(4) == b"OggS" else ""
    if lacking:
        raise AudioError(f"truncated: {lacking}")
    if damaged:
        raise AudioError(f"damaged: {damaged}")


def _check_count(file: soundfile.SoundFile, samples: int) -> None:
    """Raise AudioError if a FLAC file had fewer samples than its header states."""
    # For lossless formats the header's count is exact; if it is left open, it is far beyond any file.
    if samples < file.frames < _OPEN_FRAMES and file.format == "FLAC":
        raise AudioError(f"truncated: it has {samples} of {file.frames} samples")


@dataclasses.dataclass(frozen=True)
class Stream:
    """A recording that is decoded as it is read.

    Attributes:
      rate: sample rate of the file, Hz.
      seconds: length that the header states; a broken file may be shorter.
      channels: number of channels of the file.
      blocks: mono float32 blocks (n,); the iterator raises AudioError if the file is broken.
    """

    rate: int
    seconds: float
    channels: int
    blocks: Iterator[np.ndarray]


@contextmanager
def stream(source: str | Path | bytes) -> Iterator[Stream]:
    """Open a sound of any length, to be read in bounded memory; channels are averaged.

    Args:
      source: path of a file, or its bytes.

    Raises:
      AudioError: the file cannot be decoded, is shorter than it states, has a damaged page (Ogg), or its
        rate is outside RATES (at 1 Hz, one block would be resampled to days of sound). While blocks are read:
        samples are NaN, infinite or absurdly large. After the last block: a FLAC file is truncated, which
        only decoding shows, or a file holds integers written as floats without scaling.
    """
    with _decoding():
        file = open_sound(source)
    with file:
        check_rate(file.samplerate)
        _check_whole(source)
        seconds = max(0, file.frames) / file.samplerate
        yield Stream(file.samplerate, seconds, file.channels, _checked_blocks(file))


def check_rate(sample_rate: int) -> None:
    """Raise AudioError unless the rate, in Hz, is within RATES."""
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise AudioError(f"its rate is {sample_rate} Hz, not between {RATES[0]} and {RATES[1]}")


def check_samples(samples: np.ndarray) -> np.ndarray:
    """Raise AudioError if a sample is NaN, infinite or above LOUDEST; return the absolute values."""
    if not np.isfinite(samples).all():
        raise AudioError("NaN or infinite samples")
    size = np.abs(samples)
    if (peak := float(size.max(initial=0))) > LOUDEST:
        raise AudioError(f"samples of {peak:.0e} times full scale")
    return size


@dataclasses.dataclass
class FullScale:
    """Whether a sound holds integers made floats without scaling, judged as it is added block by block.

    >>> scale = FullScale()
    >>> scale.add(np.array([0.0, 0.5, 900.0]))
    >>> scale.exceeded
    '50% of its samples exceed full scale, which is 1.0 for floats'
    """

    _sounding: int = 0
    _beyond: int = 0

    def add(self, size: np.ndarray) -> None:
        """Add the absolute values (n,) of the next samples."""
        self._sounding += int(np.count_nonzero(size))
        self._beyond += int(np.count_nonzero(size > 1))

    @property
    def exceeded(self) -> str:
        """What is wrong with the samples so far; '' unless more than _MAX_BEYOND exceed full scale."""
        if self._beyond <= _MAX_BEYOND * self._sounding:
            return ""
        share = self._beyond / self._sounding
        return f"{share:.0%} of its samples exceed full scale, which is 1.0 for floats"


def _checked_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    blocks = _mono_blocks(file)
    total, scale = 0, FullScale()
    while True:
        with _decoding():  # around the decoder only: errors in the caller's code are not this file's fault
            block = next(blocks, None)
        if block is None:
            break
        scale.add(check_samples(block))
        total += len(block)
        yield block
    _check_count(file, total)
    if file.subtype in _FLOATS and scale.exceeded:
        raise AudioError(f"{scale.exceeded}: rescale it")


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    # Blocks hold a bounded number of values, however many channels a header claims.
    frames = max(1, _BLOCK_FRAMES // file.channels)
    while (block := file.read(frames, dtype="float32", always_2d=True)).size:
        yield block.mean(axis=1)


@contextmanager
def _decoding() -> Iterator[None]:
    """Re-raise errors of libsndfile and the file system as AudioError."""
    try:
        yield
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        # TypeError: soundfile takes a file named .raw for headerless PCM and demands its format.
        raise AudioError(f"not decodable: {shortened_reason(error)}") from error


def resample(audio: Audio, rate: int) -> Audio:
    """Resample to `rate` Hz with soxr's HQ filter; audio already at that rate is returned unchanged."""
    if audio.rate == rate:
        return audio
    samples = soxr.resample(audio.samples, audio.rate, rate, quality="HQ")
    if not samples.size:
        raise AudioError(f"no samples left at {rate} Hz")
    return dataclasses.replace(audio, samples=samples.astype(np.float32), rate=rate)


def to_int16(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """Round float samples (n,) to int16 (n,); return them and the number that had to be clipped."""
    scaled = np.rint(samples * np.float32(32768))
    clipped = np.count_nonzero((scaled > 32767) | (scaled < -32768))
    return np.clip(scaled, -32768, 32767).astype(np.int16), int(clipped)


def from_int16(samples: np.ndarray) -> np.ndarray:
    """Return int16 samples as float32, full scale +-1."""
    return samples.astype(np.float32) / 32768


def pad_or_crop(samples: np.ndarray, length: int) -> np.ndarray:
    """Cut samples (n,) to (length,), or pad them with zeros at the end."""
    if len(samples) >= length:
        return samples[:length]
    return np.pad(samples, (0, length - len(samples)))

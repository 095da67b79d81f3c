"""Helpers for the tests of stretching and pitch shifting: librosa's two vocoders, a distance, test sounds."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import soundfile

RATE, ROOM = 22050, 60000


def by_librosa(y: np.ndarray, rate: float, *, clamp: bool) -> np.ndarray:
    """Stretch with a transcription of librosa's vocoder: version 1.0 if `clamp`, else 0.11.

    After the last frame, 0.11 sees zeros; 1.0 repeats the last phase and extrapolates the magnitudes.
    0.11 also adds each bin's own rotations to its phase, which grows large and is rounded to float32.
    """
    spectra = librosa.stft(y)
    last = spectra.shape[1] - 1
    at = np.arange(0, last + 1, rate, dtype=np.float64)
    left = np.floor(at).astype(int)
    share = at - left
    angle, magnitude = np.angle(spectra), np.abs(spectra)
    behind = 2 * magnitude[:, -1:] - magnitude[:, -2:-1] if clamp else 0 * magnitude[:, :1]
    magnitude = np.concatenate([magnitude, behind], axis=1)
    angle = np.concatenate([angle, angle[:, -1:] if clamp else 0 * angle[:, :1]], axis=1)
    advance = angle[:, left + 1] - angle[:, left]
    if not clamp:
        turn = 512 * 2 * np.pi * np.fft.rfftfreq(2048)[:, None]
        off = advance - turn
        advance = (turn + off - 2 * np.pi * np.round(off / (2 * np.pi))).astype(np.float32)
    phase = np.cumsum(np.concatenate([angle[:, :1], advance[:, :-1]], axis=1), axis=1)
    loud = (1 - share) * magnitude[:, left] + share * magnitude[:, left + 1]
    return librosa.istft(loud * np.exp(1j * phase), length=round(len(y) / rate))


def log_spectral_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the log-spectral distance in dB: RMS over bins, mean over frames, of the loudest 80 dB."""
    power = [np.abs(librosa.stft(x.astype(np.float32))) ** 2 for x in (a, b)]
    floor = 1e-8 * max(p.max() for p in power)
    first, second = (10 * np.log10(np.maximum(p, floor)) for p in power)
    return float(np.mean(np.sqrt(np.mean((first - second) ** 2, axis=0))))


def in_room(*sounds: np.ndarray) -> jax.Array:
    return jnp.asarray(np.stack([np.pad(y, (0, ROOM - len(y))) for y in sounds]))


def real_clips(data_dir: Path) -> list[np.ndarray]:
    """Return four real clips, each longer than 24,000 samples and without silence at its end."""
    files = sorted((data_dir / "esc50_16k" / "audio").glob("2-*.ogg"))[::40]
    sounds = [soundfile.read(file, frames=45000, dtype="float32")[0] for file in files]
    return [y for y in (np.trim_zeros(y, "b") for y in sounds) if len(y) > 24000][:4]


@functools.cache
def tone() -> np.ndarray:
    """Return two seconds of a 440 Hz tone."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


def cents(sound: np.ndarray, frequency: float) -> float:
    """Return how far, in cents, the loudest frequency lies above `frequency` in Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**19))
    return float(1200 * np.log2(np.argmax(spectrum) * RATE / 2**19 / frequency))

"""Real clips at every supported rate, and synthetic signals that tend to break features."""

import functools

import numpy as np
import pytest
import soundfile
import soxr

RATES = (8000, 16000, 22050, 32000, 44100, 48000)

# One recording per rate, resampled where its own rate differs.
SOURCES = {
    8000: "fsdd/audio/0_george_0.flac",
    16000: "esc50_16k/audio/1-100032-A-0.ogg",
    22050: "esc10_44k1/audio/1-100032-A-0.ogg",
    32000: "ravdess/audio/03-01-01-01-01-01-01.ogg",
    44100: "esc10_44k1/audio/1-100032-A-0.ogg",
    48000: "ravdess/audio/03-01-01-01-01-01-01.ogg",
}


@pytest.fixture(scope="session")
def clip(data_dir):
    """A function that takes a rate (and seconds) and returns one real mono clip at that rate, float32 `(N,)`.

    `clip(16000)` lasts about a second and has an odd number of samples.
    """

    @functools.cache
    def load(rate: int, seconds: float = 1.0) -> np.ndarray:
        y, native = soundfile.read(data_dir / SOURCES[rate], dtype="float32", always_2d=True)
        y = soxr.resample(y.mean(axis=1), native, rate).astype(np.float32)
        # Cut around the loudest sample, so that no clip is silent.
        length = int(rate * seconds) // 2 * 2 - 1
        start = max(0, min(int(np.argmax(np.abs(y))) - length // 4, len(y) - length))
        y = np.ascontiguousarray(y[start : start + length])
        y.setflags(write=False)
        return y

    return load


@pytest.fixture(scope="session")
def hostile():
    """A function that takes a length and returns named signals, float32 `(N,)`, that may break features."""

    @functools.cache
    def make(length: int = 9001) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        click = np.zeros(length, np.float32)
        click[length // 3] = 1.0
        seconds = np.arange(length) / 16000
        return {
            "noise": rng.uniform(-1, 1, length).astype(np.float32),
            "click": click,
            "chirp": np.sin(2 * np.pi * (100 + 3000 * seconds) * seconds).astype(np.float32),
            "dc": np.full(length, 0.5, np.float32),
        }

    return make


@pytest.fixture(scope="session")
def dithered(clip):
    """A function that returns a clip without digital silence, where `norm` would amplify rounding noise."""

    def make(rate: int, seconds: float = 1.0) -> np.ndarray:
        y = clip(rate, seconds)
        return y + np.random.default_rng(0).uniform(-1e-2, 1e-2, len(y)).astype(np.float32)

    return make


def relative_error(ours, reference) -> float:
    """Return the maximum absolute error over the maximum absolute reference (over 1 if that is zero)."""
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape
    assert np.all(np.isfinite(ours))
    peak = np.max(np.abs(reference))
    return float(np.max(np.abs(ours - reference)) / (peak if peak > 0 else 1.0))


@pytest.fixture(scope="session", name="relative_error")
def relative_error_fixture():
    """The function `relative_error(ours, reference)`, which measures parity."""
    return relative_error

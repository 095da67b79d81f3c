"""Ten classes of synthesised sound, so that a first run needs no download."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from input_pipeline.audio import Audio
from input_pipeline.clip import Clip, Sound
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.errors import DataError

RATE = 16000
_LONGEST = 2 * RATE  # samples; FFTs of this length are fast, those of a random length are not

Rng = np.random.Generator


class Quickstart(AudioBuilder):
    """Synthetic: no sound here was ever recorded.

    Ten classes, synthesised by formula with random pitch, tempo, timbre and level, in coloured background
    noise at a signal-to-noise ratio of 0 to 20 dB; clips of 1 to 2 s, 16 kHz. A clip is determined by the
    seed, its split and its number. Good for trying the programs, not for claims about recognition.
    """

    NEEDS_SOURCE = False
    OPTIONS: ClassVar[dict[str, Any]] = {"train_clips": 1000, "test_clips": 200, "seed": 0}
    LICENSE = "synthetic, CC0-1.0"

    def label_names(self) -> Sequence[str]:
        """The names of the ten synthesisers."""
        return list(SYNTHESISERS)

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train and test; clips take the classes in turn."""
        names, options = self.label_names(), self.builder_config.options
        if options["seed"] < 0:
            raise DataError(f"config.dataset.seed={options['seed']} must not be negative")
        splits: dict[str, list[Clip]] = {}
        for split in ("train", "test"):
            splits[split] = []
            for number in range(options[f"{split}_clips"]):
                label, seed = names[number % len(names)], (options["seed"], int(split == "test"), number)
                splits[split].append(Clip(f"{split}-{number:05}", (label,), Synthesis(label, seed)))
        return splits


@dataclass(frozen=True)
class Synthesis(Sound):
    """Sound of a class, synthesised from a seed."""

    label: str
    seed: tuple[int, ...]

    def load(self, max_seconds: float) -> tuple[Audio, str]:
        """Synthesise the clip, which is never longer than 2 s."""
        samples = synthesise(self.label, np.random.default_rng(self.seed))
        digest = hashlib.sha256(samples.tobytes()).hexdigest()
        return Audio(samples, RATE, RATE, channels=1), digest


def synthesise(label: str, rng: Rng) -> np.ndarray:
    """Return a clip of the class with background noise, float32 (n,) at 16 kHz."""
    t = np.arange(int(rng.uniform(1.0, 2.0) * RATE)) / RATE
    sound = SYNTHESISERS[label](t, rng)
    sound = sound / np.sqrt(np.mean(sound**2) + 1e-12)
    noise = _noise(len(t), rng, slope=rng.uniform(0.0, 1.0))
    mixture = sound + noise * 10 ** (-rng.uniform(0.0, 20.0) / 20)
    return (mixture / np.abs(mixture).max() * rng.uniform(0.1, 0.9)).astype(np.float32)


def _noise(n: int, rng: Rng, slope: float, low: float = 20.0, high: float = RATE / 2) -> np.ndarray:
    """Return Gaussian noise (n,) of unit power, with amplitude ~ frequency^-slope from low to high Hz."""
    frequency = np.fft.rfftfreq(_LONGEST, 1 / RATE)
    shape = np.where((frequency >= low) & (frequency <= high), np.maximum(frequency, 1) ** -slope, 0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(_LONGEST)) * shape, _LONGEST)[:n]
    return noise / noise.std()


def _tone(frequency: np.ndarray | float, t: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Return the weighted sum of harmonics 1, 2, ... of a frequency in Hz, which may change over time."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(frequency, t.shape)) / RATE
    return np.sum([w * np.sin((k + 1) * phase) for k, w in enumerate(weights)], axis=0)


def _repeat(t: np.ndarray, onsets: np.ndarray, event: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the sum of events that begin at the onsets, in seconds."""
    sound = np.zeros(len(t))
    for onset in onsets:
        start = int(onset * RATE)
        piece = event()[: len(t) - start]
        sound[start : start + len(piece)] += piece
    return sound


def _onsets(t: np.ndarray, period: float, rng: Rng) -> np.ndarray:
    return np.arange(rng.uniform(0, min(period, 0.5)), t[-1], period)


def _siren(t: np.ndarray, rng: Rng) -> np.ndarray:
    """A tone that wails up and down."""
    swing = np.sin(2 * np.pi * (rng.uniform(0.8, 3.0) * t + rng.uniform()))
    frequency = rng.uniform(600, 1100) * 2 ** (rng.uniform(0.4, 0.8) * swing)
    return _tone(frequency, t, [1, 0.5, 0.3])


def _chirp(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Short, fast upward sweeps, as of a bird."""
    length = rng.uniform(0.06, 0.14)
    s = np.arange(int(length * RATE)) / RATE
    low, ratio = rng.uniform(1800, 2800), rng.uniform(1.5, 2.3)
    sweep = _tone(low * ratio ** (s / length), s, [1, 0.2]) * np.hanning(len(s))
    return _repeat(t, _onsets(t, length * rng.uniform(1.4, 3.0), rng), lambda: sweep)


def _click_train(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Dry broadband clicks, regular."""
    s = np.arange(int(0.01 * RATE)) / RATE
    decay = np.exp(-s / rng.uniform(0.0005, 0.0015))
    onsets = _onsets(t, 1 / rng.uniform(8, 25), rng)
    return _repeat(t, onsets, lambda: decay * rng.standard_normal(len(s)))


def _bell(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Inharmonic partials that ring out, in the ratios of a church bell."""
    f = rng.uniform(350, 900)
    length = rng.uniform(0.3, 0.7)
    partials = [
        np.sin(2 * np.pi * f * ratio * t) * np.exp(-t * ratio**0.5 / length) * rng.uniform(0.4, 1)
        for ratio in (0.5, 1.0, 1.2, 1.5, 2.0, 2.67, 4.0)
    ]
    stroke = np.sum(partials, axis=0)
    return _repeat(t, _onsets(t, rng.uniform(0.5, 1.5), rng), lambda: stroke)


def _rain(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Bright hiss and many small drops."""
    hiss = _noise(len(t), rng, slope=-0.3, low=rng.uniform(1500, 3000))
    drops = (rng.random(len(t)) < rng.uniform(100, 400) / RATE) * rng.exponential(3.0, len(t))
    ring = np.arange(80) / RATE
    drop = np.sin(2 * np.pi * rng.uniform(4000, 6500) * ring) * np.exp(-ring / 0.0012)
    return hiss + np.convolve(drops, drop)[: len(t)]


def _engine(t: np.ndarray, rng: Rng) -> np.ndarray:
    """A low buzz of many harmonics, uneven from cycle to cycle."""
    revs = rng.uniform(35, 90) * 2 ** (rng.uniform(-0.2, 0.2) * t)
    wobble = 1 + 0.05 * _noise(len(t), rng, slope=1.0, high=30.0)
    weights = rng.uniform(0.3, 1.0, 24) / np.arange(1, 25) ** 0.7
    return _tone(revs * wobble, t, list(weights))


def _wind(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Low noise in slow gusts."""
    gusts = 1 + 0.8 * np.sin(2 * np.pi * (rng.uniform(0.4, 1.2) * t + rng.uniform()))
    return gusts * _noise(len(t), rng, slope=1.2, low=60.0, high=rng.uniform(500, 900))


def _alarm(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Electronic beeps of one pitch, on and off."""
    period, f = rng.uniform(0.15, 0.4), rng.uniform(1500, 3000)
    on = (t / period + rng.uniform()) % 1 < rng.uniform(0.4, 0.6)
    return on * _tone(f, t, [1, 0, 0.33])


def _horn(t: np.ndarray, rng: Rng) -> np.ndarray:
    """A steady chord of two brassy tones."""
    f, weights = rng.uniform(280, 480), 1 / np.arange(1, 9)
    return _tone(f, t, list(weights)) + _tone(f * rng.choice([1.2, 1.26]), t, list(weights))


def _knock(t: np.ndarray, rng: Rng) -> np.ndarray:
    """Dull thumps on wood, a few a second."""
    s = np.arange(int(0.12 * RATE)) / RATE
    f = rng.uniform(120, 300)
    thump = (np.sin(2 * np.pi * f * s) + 0.5 * np.sin(2 * np.pi * 2.3 * f * s)) * np.exp(-s / 0.02)
    return _repeat(t, _onsets(t, 1 / rng.uniform(3, 7), rng), lambda: thump * rng.uniform(0.6, 1))


SYNTHESISERS: dict[str, Callable[[np.ndarray, Rng], np.ndarray]] = {
    "alarm": _alarm,
    "bell": _bell,
    "chirp": _chirp,
    "click_train": _click_train,
    "engine": _engine,
    "horn": _horn,
    "knock": _knock,
    "rain": _rain,
    "siren": _siren,
    "wind": _wind,
}

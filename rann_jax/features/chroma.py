"""Chromagrams, equal to librosa's with `tuning=0.0`.

If no tuning is given, librosa estimates it from the data. A compiled transform cannot, so the default
here is 0.0 and `tuning=None` raises an error.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise, clipwise
from rann_jax.features.cqt import Transform, check_transform
from rann_jax.features.cqt_plan import check_tuning
from rann_jax.features.filter_bank import filtered
from rann_jax.features.normalize import check_norm, normalize
from rann_jax.features.stft import Framing, check_framing


class PitchClasses(NamedTuple):
    """The filters of `chroma_stft`: checked settings, hashable as one static argument of `jax.jit`.

    Attributes:
      sr: sample rate in Hz.
      tuning: deviation from A440, in chroma bins.
      n_chroma: bins per octave.
      ctroct: centre of the weighting over octaves, in octaves above A0, 27.5 Hz.
      octwidth: width of that weighting in octaves; None for no weighting.
      base_c: whether bin 0 is C; otherwise A.
    """

    sr: float
    tuning: float
    n_chroma: int
    ctroct: float
    octwidth: float | None
    base_c: bool

    def filters(self, n_fft: int) -> np.ndarray:
        """Return librosa's filters, `(n_chroma, 1 + n_fft // 2)` float32."""
        return chroma_filter_bank(self, n_fft)


@functools.lru_cache(maxsize=32)
def chroma_filter_bank(classes: PitchClasses, n_fft: int) -> np.ndarray:
    """Return `PitchClasses.filters`, made once."""
    return librosa.filters.chroma(n_fft=n_fft, **classes._asdict())


@functools.partial(jax.jit, static_argnames=("framing", "classes", "norm"))
def _chroma_stft(y: jax.Array, framing: Framing, classes: PitchClasses, norm: float | None) -> jax.Array:
    n_fft, hop_length = framing.n_fft, framing.hop_length
    bank = classes.filters(n_fft)

    def chromagram(clips: jax.Array) -> jax.Array:
        power = filtered(framing.padded(clips), framing.samples, n_fft, hop_length, bank)
        return normalize(power, norm, axis=-2)

    return batchwise(chromagram, y)


def chroma_stft(
    y: ArrayLike,
    *,
    sr: float = 22050,
    norm: float | None = math.inf,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    window: signal.WindowSpec = "hann",
    center: bool = True,
    pad_mode: str = "constant",
    tuning: float | None = 0.0,
    n_chroma: int = 12,
    ctroct: float = 5.0,
    octwidth: float | None = 2,
    base_c: bool = True,
) -> jax.Array:
    """Chromagram of a power spectrogram, equal to `librosa.feature.chroma_stft`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      norm: norm of each column: inf for its maximum, p for the p-norm, None for none.
      n_fft: samples per frame; see `stft` for this and the framing arguments that follow.
      hop_length: samples between frames.
      win_length: window length; default `n_fft`.
      window: window specification.
      center: whether frames are centred.
      pad_mode: how the ends are extended.
      tuning: deviation from A440, in chroma bins.
      n_chroma: bins per octave.
      ctroct: centre of the weighting over octaves, in octaves above A0, 27.5 Hz.
      octwidth: width of that weighting in octaves, positive; None for no weighting.
      base_c: whether bin 0 is C; otherwise A.

    Returns:
      float32 `(..., n_chroma, T)`.

    Raises:
      ValueError: as `stft`; `n_fft` 1; `sr` or `octwidth` not positive; `tuning` None or not finite;
        `ctroct` not finite; a negative `norm`.

    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> np.argmax(chroma_stft(y).mean(axis=-1)).item()  # A is 9 semitones above C
    9
    """
    tuning, norm, sr = check_tuning(tuning), check_norm(norm), signal.check_rate(sr)
    signal.check_positive(n_chroma=n_chroma)
    ctroct = signal.number("ctroct", ctroct)
    width = None if octwidth is None else signal.number("octwidth", octwidth)
    if not math.isfinite(ctroct):
        raise ValueError(f"ctroct={ctroct:g} must be finite, in octaves")
    if width is not None and not width > 0:  # NaN too
        raise ValueError(f"octwidth={octwidth} must be positive, or None for no weighting")
    y, framing = check_framing(y, n_fft, hop_length, win_length, window, center, pad_mode)
    if framing.n_fft == 1:
        raise ValueError("n_fft=1 has no bin above 0 Hz, so it shows no chroma: use n_fft=2 or more")
    classes = PitchClasses(sr, tuning, int(n_chroma), ctroct, width, signal.flag("base_c", base_c))
    return _chroma_stft(y, framing, classes, norm)


class Folding(NamedTuple):
    """How a transform becomes a chromagram: checked settings, hashable as one static argument of `jax.jit`.

    Attributes:
      transform: the transform whose octaves are summed.
      n_chroma: bins per octave of the chromagram.
      fmin: lowest frequency in Hz without the tuning; None for C1.
      weights: spread each bin of the transform over its neighbours; None for none.
      threshold: values below it become zero; None for no threshold.
      norm: norm of each column, see `normalize`.
    """

    transform: Transform
    n_chroma: int
    fmin: float | None
    weights: tuple[float, ...] | None
    threshold: float | None
    norm: float | None

    @property
    def bank(self) -> np.ndarray:
        """The matrix that sums octaves, `(n_chroma, n_bins)` float32."""
        design = self.transform.design
        return folding_bank(design.n_bins, design.bins_per_octave, self.n_chroma, self.fmin, self.weights)


@functools.lru_cache(maxsize=32)
def folding_bank(
    n_bins: int, bins_per_octave: int, n_chroma: int, fmin: float | None, weights: tuple[float, ...] | None
) -> np.ndarray:
    """Return `Folding.bank`, made once."""
    return librosa.filters.cq_to_chroma(
        n_bins,
        bins_per_octave=bins_per_octave,
        n_chroma=n_chroma,
        fmin=fmin,
        window=None if weights is None else np.asarray(weights),
    ).astype(np.float32)


@functools.partial(jax.jit, static_argnames="folding")
def _chroma_cqt(y: jax.Array, folding: Folding) -> jax.Array:
    bank = jnp.asarray(folding.bank)

    def chromagram(clips: jax.Array) -> jax.Array:
        loudness = jnp.abs(folding.transform.bins(clips))
        chroma = jnp.matmul(bank, loudness, precision=jax.lax.Precision.HIGHEST)
        if folding.threshold is not None:
            chroma = jnp.where(chroma < folding.threshold, jnp.float32(0), chroma)
        return normalize(chroma, folding.norm, axis=-2)

    return clipwise(chromagram, y)


def _spreading(window: Any) -> tuple[float, ...]:
    """Return weights `(width,)` of neighbouring bins, hashable; ValueError for anything else."""
    try:
        weights = np.asarray(window, np.float64)
    except (TypeError, ValueError):
        weights = np.zeros(0)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"window must be weights of shape (width,), got {window!r}: None spreads nothing")
    return tuple(weights.tolist())


def chroma_cqt(
    y: ArrayLike,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    norm: float | None = math.inf,
    threshold: float | None = 0.0,
    tuning: float | None = 0.0,
    n_chroma: int = 12,
    n_octaves: int = 7,
    window: Any = None,
    bins_per_octave: int | None = 36,
) -> jax.Array:
    """Chromagram of a constant-Q transform, equal to `librosa.feature.chroma_cqt`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      hop_length: samples between frames; see `cqt`.
      fmin: lowest frequency in Hz; default C1, 32.7 Hz.
      norm: norm of each column: inf for its maximum, p for the p-norm, None for none.
      threshold: values below it become zero before normalisation; None for no threshold.
      tuning: deviation from A440 in bins of the transform.
      n_chroma: bins per octave of the result.
      n_octaves: number of octaves that are summed.
      window: weights `(width,)` that spread each bin of the transform over its neighbours; None for none.
      bins_per_octave: bins per octave of the transform, a multiple of `n_chroma`; None for `n_chroma`.

    Returns:
      float32 `(..., n_chroma, T)`, T as in `cqt`.

    Raises:
      ValueError: as `cqt`; `bins_per_octave` that is not a multiple of `n_chroma`.

    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> np.argmax(chroma_cqt(y, n_octaves=5).mean(axis=-1)).item()  # A is 9 semitones above C
    9
    """
    norm = check_norm(norm)
    bins_per_octave = n_chroma if bins_per_octave is None else bins_per_octave
    signal.check_positive(n_chroma=n_chroma, n_octaves=n_octaves, bins_per_octave=bins_per_octave)
    fmin = None if fmin is None else signal.number("fmin", fmin)
    threshold = None if threshold is None else signal.number("threshold", threshold)
    weights = None if window is None else _spreading(window)
    if bins_per_octave % n_chroma:
        raise ValueError(f"bins_per_octave={bins_per_octave} must be a multiple of n_chroma={n_chroma}")
    y, transform = check_transform(
        y,
        sr=sr,
        hop_length=hop_length,
        fmin=fmin,
        n_bins=n_octaves * bins_per_octave,
        bins_per_octave=bins_per_octave,
        tuning=tuning,
    )
    return _chroma_cqt(y, Folding(transform, int(n_chroma), fmin, weights, threshold, norm))

"""Gammatone spectrogram and cepstral coefficients (GFCC), with the values of spafe.

The steps are: pre-emphasis, Hamming-windowed frames, power spectrum over `n_fft`, weighting of its bins by
fourth-order gammatone filters on the ERB scale, cube root (not a logarithm), DCT.

The filters are those of M. Slaney, "An efficient implementation of the Patterson-Holdsworth auditory
filter bank", Apple Technical Report 35, 1993, applied to FFT bins as in D. P. W. Ellis,
"Gammatone-like spectrograms", 2009; spafe scales each to a peak of 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise
from rann_jax.features.filter_bank import filtered
from rann_jax.features.mfcc import dct_rows
from rann_jax.features.stft import centered, resolve_lengths

# Glasberg and Moore: quality factor at high frequencies, bandwidth at low ones in Hz.
EAR_Q = 9.26449
MINIMUM_BANDWIDTH = 24.7


def erb_centers(n_filters: int, fmin: float, fmax: float) -> np.ndarray:
    """Return centre frequencies in Hz, equally spaced on the ERB scale from fmin to below fmax."""
    corner = EAR_Q * MINIMUM_BANDWIDTH
    steps = np.arange(n_filters, 0, -1) / n_filters
    return (fmax + corner) * np.exp(steps * np.log((fmin + corner) / (fmax + corner))) - corner


@functools.lru_cache(maxsize=64)
def gammatone_filter_bank(sr: float, n_fft: int, n_filters: int, fmin: float, fmax: float) -> np.ndarray:
    """Return magnitude responses `(n_filters, 1 + n_fft // 2)`, each with peak 1, float32.

    A fourth-order gammatone filter is a cascade of four second-order sections. All share one pole pair;
    each has one real zero of its own.
    """
    center = erb_centers(n_filters, fmin, fmax)[:, None]
    bandwidth = ((center / EAR_Q) ** 4 + MINIMUM_BANDWIDTH**4) ** 0.25
    decay = np.exp(-1.019 * 2 * np.pi * bandwidth / sr)
    angle = 2 * np.pi * center / sr
    bins = np.exp(2j * np.pi * np.arange(1 + n_fft // 2) / n_fft)[None, :]
    response = np.ones((n_filters, bins.shape[1]))
    for root in (3 + 2**1.5, 3 - 2**1.5):
        for sign in (1, -1):
            zero = decay * (np.cos(angle) + sign * np.sqrt(root) * np.sin(angle))
            response *= np.abs(bins - zero)
    pole = decay * np.exp(1j * angle)
    response *= np.abs((bins - pole) * (bins - pole.conj())) ** -4.0
    return (response / response.max(axis=1, keepdims=True)).astype(np.float32)


class Gammatone(NamedTuple):
    """Settings of a gammatone spectrogram: checked, hashable as one static argument of `jax.jit`.

    Attributes:
      sr: sample rate in Hz.
      n_filters: number of filters.
      n_fft: FFT length in samples.
      hop_length: samples between frames.
      win_length: length of the window and of a frame in samples.
      fmin: centre of the lowest filter in Hz.
      fmax: upper edge in Hz.
      pre_emphasis: coefficient of the pre-emphasis; 0 for none.
      center: whether frame t is centred at sample `t * hop_length`.
    """

    sr: float
    n_filters: int
    n_fft: int
    hop_length: int
    win_length: int
    fmin: float
    fmax: float
    pre_emphasis: float
    center: bool

    @property
    def bank(self) -> np.ndarray:
        """The filters, `(n_filters, 1 + n_fft // 2)` float32."""
        return gammatone_filter_bank(self.sr, self.n_fft, self.n_filters, self.fmin, self.fmax)

    @property
    def window(self) -> np.ndarray:
        """The window, `(win_length,)` float64.

        spafe's frames are as long as the window, a symmetric Hamming window. Its power spectrum has a factor
        1 / n_fft, which is put into the window here.
        """
        return np.hamming(self.win_length) / np.sqrt(self.n_fft)

    def power(self, y: jax.Array) -> jax.Array:
        """Return the power of the filters, `(..., n_filters, T)`, of `(..., N)`."""
        if self.pre_emphasis:
            before = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(1, 0)])[..., :-1]
            y = y - jnp.float32(self.pre_emphasis) * before
        y = centered(y, self.win_length, self.center, "constant")
        return filtered(y, self.window, self.n_fft, self.hop_length, self.bank)


@functools.partial(jax.jit, static_argnames="gammatone")
def _gammatonegram(y: jax.Array, gammatone: Gammatone) -> jax.Array:
    return batchwise(gammatone.power, y)


@functools.partial(jax.jit, static_argnames=("gammatone", "n_gfcc"))
def _gfcc(y: jax.Array, gammatone: Gammatone, n_gfcc: int) -> jax.Array:
    power = _gammatonegram(y, gammatone)
    silent = power <= 0
    loudness = jnp.where(silent, 0, jnp.cbrt(jnp.where(silent, jnp.float32(1), power)))
    return dct_rows(loudness, n_gfcc)


def check_gammatone(
    y: Any,
    *,
    sr: float,
    n_filters: int,
    n_fft: int,
    hop_length: int,
    win_length: int | None,
    fmin: float,
    fmax: float | None,
    pre_emphasis: float,
    center: bool,
) -> tuple[jax.Array, Gammatone]:
    """Check a waveform and the arguments of `gammatonegram`; return it as float32 and a `Gammatone`."""
    signal.check_positive(n_filters=n_filters)
    n_fft, hop_length, win_length = resolve_lengths(n_fft, hop_length, win_length)
    fmin, fmax, sr = signal.check_band(fmin, fmax, sr)
    emphasis = signal.number("pre_emphasis", pre_emphasis)
    if not math.isfinite(emphasis):
        raise ValueError(f"pre_emphasis={emphasis} must be finite; 0 turns it off")
    y = signal.as_waveform(y)
    if not center and y.shape[-1] < win_length:
        raise ValueError(
            f"y has {y.shape[-1]} samples, fewer than win_length={win_length}:"
            " use center=True, a shorter window or a longer clip"
        )
    signal.warn_if_swapped(y, n_fft)
    return y, Gammatone(
        sr=sr,
        n_filters=int(n_filters),
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        fmin=fmin,
        fmax=fmax,
        pre_emphasis=emphasis,
        center=signal.flag("center", center),
    )


def gammatonegram(
    y: ArrayLike,
    *,
    sr: float,
    n_filters: int = 128,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    fmin: float = 50.0,
    fmax: float | None = None,
    pre_emphasis: float = 0.97,
    center: bool = True,
) -> jax.Array:
    """Gammatone power spectrogram; with `center=False` equal to `spafe.features.gfcc.erb_spectrogram`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      n_filters: number of filters, equally spaced on the ERB scale from `fmin` on.
      n_fft: FFT length, at least `win_length` (spafe silently truncates a longer window).
      hop_length: samples between frames.
      win_length: length of the symmetric Hamming window and of a frame; default `n_fft`.
      fmin: centre of the lowest filter in Hz.
      fmax: upper edge in Hz, above the highest centre; default `sr / 2`.
      pre_emphasis: the coefficient a of `y[n] - a * y[n - 1]`; 0 for none.
      center: whether frame t is centred at sample `t * hop_length`, with zeros beyond the ends of the
        signal (ours, as in `stft`); with False it begins there, as in spafe.

    Returns:
      float32 power `(..., n_filters, T)`.

    Raises:
      ValueError: empty or integer `y`, `n_fft` shorter than the window, `fmax` above Nyquist, a
        clip shorter than the window with `center=False`.

    >>> gammatonegram(np.ones((2, 8000), np.float32), sr=16000, n_filters=64).shape
    (2, 64, 16)
    """
    y, gammatone = check_gammatone(
        y,
        sr=sr,
        n_filters=n_filters,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        fmin=fmin,
        fmax=fmax,
        pre_emphasis=pre_emphasis,
        center=center,
    )
    return _gammatonegram(y, gammatone)


def gfcc(
    y: ArrayLike,
    *,
    sr: float,
    n_gfcc: int = 20,
    n_filters: int = 128,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    fmin: float = 50.0,
    fmax: float | None = None,
    pre_emphasis: float = 0.97,
    center: bool = True,
) -> jax.Array:
    """Gammatone-frequency cepstral coefficients; with `center=False` equal to `spafe.features.gfcc.gfcc`.

    They are the orthonormal DCT, over the filters, of the cube root of `gammatonegram`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      n_gfcc: number of coefficients, at most `n_filters`.
      n_filters: see `gammatonegram` for this and the arguments that follow.
      n_fft: FFT length.
      hop_length: samples between frames.
      win_length: window and frame length.
      fmin: centre of the lowest filter in Hz.
      fmax: upper edge in Hz, above the highest centre.
      pre_emphasis: pre-emphasis coefficient.
      center: whether frames are centred.

    Returns:
      float32 `(..., n_gfcc, T)`.

    Raises:
      ValueError: as `gammatonegram`; more coefficients than filters.

    >>> gfcc(np.ones((2, 8000), np.float32), sr=16000, n_gfcc=13).shape
    (2, 13, 16)
    """
    signal.check_positive(n_gfcc=n_gfcc, n_filters=n_filters)
    if n_gfcc > n_filters:
        raise ValueError(
            f"n_gfcc={n_gfcc} coefficients need at least as many filters, but n_filters={n_filters}:"
            " use fewer coefficients or more filters"
        )
    y, gammatone = check_gammatone(
        y,
        sr=sr,
        n_filters=n_filters,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        fmin=fmin,
        fmax=fmax,
        pre_emphasis=pre_emphasis,
        center=center,
    )
    return _gfcc(y, gammatone, int(n_gfcc))

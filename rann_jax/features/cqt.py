"""Constant-Q and variable-Q transforms, complex, equal to librosa's.

The transform is multirate (Schoerkhuber and Klapuri, "Constant-Q transform toolbox for music
processing", SMC 2010): the top octave is filtered at the full rate; for each octave below, the
signal is decimated by two and the hop halves, so that every octave has the same number of frames.
Everything that depends on the arguments alone, chiefly the filters, is made once on the host (`cqt_plan`).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.band import C1
from rann_jax.features.clipwise import clipwise
from rann_jax.features.cqt_plan import Design, Octave, check_length, check_tuning, make_plan
from rann_jax.features.normalize import check_norm
from rann_jax.features.resample import HALF_WIDTH, soxr_resample

INTERVALS = ("equal", "pythagorean", "ji3", "ji5", "ji7")


def _responses(y: jax.Array, octave: Octave, n_frames: int, pad_mode: str) -> jax.Array:
    """Filter `(..., N)` with the filters of one octave; return complex `(..., bins, n_frames)`."""
    two_bins, n_fft = octave.kernel.shape
    y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(n_fft // 2, n_fft // 2)], mode=pad_mode)
    frames = signal.frame(y[..., : n_fft + (n_frames - 1) * octave.hop_length], n_fft, octave.hop_length)
    parts = jnp.matmul(frames, octave.kernel.T, precision=jax.lax.Precision.HIGHEST)
    parts = jnp.swapaxes(parts, -1, -2)
    return jax.lax.complex(parts[..., : two_bins // 2, :], parts[..., two_bins // 2 :, :])


@dataclasses.dataclass(frozen=True)
class Transform:
    """Settings of a transform: checked, hashable as one static argument of `jax.jit`.

    Attributes:
      design: what its filters are made from.
      pad_mode: how the ends are extended.
      res_type: resampler used for decimation.
    """

    design: Design
    pad_mode: str
    res_type: str

    def bins(self, y: jax.Array) -> jax.Array:
        """Return the complex transform, `(..., n_bins, T)`, of `(..., N)`."""
        plan = make_plan(self.design)
        if plan.early_factor > 1:
            n = -(-y.shape[-1] // plan.early_factor)
            y = soxr_resample(y, 1, plan.early_factor, self.res_type)
            # libsoxr rounds the number of samples; the transform rounds it up.
            y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, n - y.shape[-1])])
        signals = []
        for octave in plan.octaves:
            if octave.decimate:
                y = soxr_resample(y, 1, 2, self.res_type)
            signals.append(y)
        octaves = list(zip(signals, plan.octaves, strict=True))
        n_frames = min(1 + y.shape[-1] // octave.hop_length for y, octave in octaves)
        stack = [_responses(y, octave, n_frames, self.pad_mode) for y, octave in octaves]
        return jnp.concatenate(stack[::-1], axis=-2)


@functools.partial(jax.jit, static_argnames="transform")
def _vqt(y: jax.Array, transform: Transform) -> jax.Array:
    return clipwise(transform.bins, y)


def _checked_intervals(intervals: str | Sequence[float]) -> str | tuple[float, ...]:
    """Return `intervals`, hashable; ValueError if it is neither a known name nor ratios of one octave."""
    if np.iterable(intervals) and not isinstance(intervals, str):
        ratios = tuple(signal.number("a ratio of intervals", ratio) for ratio in intervals)
        if ratios and len(set(ratios)) == len(ratios) and all(1 <= ratio < 2 for ratio in ratios):
            return ratios
    elif isinstance(intervals, str) and intervals in INTERVALS:
        return intervals
    raise ValueError(
        f"intervals={intervals!r} is not supported: use one of {INTERVALS}, or distinct ratios of one octave,"
        " from 1 to below 2"
    )


def _check_filters(
    gamma: float | None, norm: float | None, sparsity: float, window: signal.WindowSpec
) -> tuple[float | None, float | None, float, Any]:
    """Return the filters' settings, hashable; ValueError for those that librosa would not accept."""
    norm, sparsity = check_norm(norm), signal.number("sparsity", sparsity)
    gamma = None if gamma is None else signal.number("gamma", gamma)
    if not (gamma is None or 0 <= gamma < math.inf):
        raise ValueError(
            f"gamma={gamma} Hz must not be negative or infinite: 0 gives constant Q, None the ear's bandwidth"
        )
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity} must be at least 0 and below 1")
    if isinstance(window, np.ndarray | list | jax.Array):
        raise ValueError(
            "window must be a name, or a function of the length, because filters differ in length"
        )
    hashable = signal.as_tuples(window)
    signal.check_window(hashable)
    if not callable(hashable):
        signal.symmetric_window(hashable, 8)  # raises ValueError here if there is no such window
    return gamma, norm, sparsity, hashable


def check_transform(
    y: Any,
    *,
    sr: float,
    hop_length: int,
    fmin: float | None,
    n_bins: int,
    bins_per_octave: int,
    tuning: float | None,
    intervals: str | Sequence[float] = "equal",
    gamma: float | None = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1,
    sparsity: float = 0.01,
    window: signal.WindowSpec = "hann",
    scale: bool = True,
    pad_mode: str = "constant",
    res_type: str = "soxr_hq",
) -> tuple[jax.Array, Transform]:
    """Check a waveform and the arguments of `vqt`; return the waveform as float32 and a `Transform`."""
    deviation = check_tuning(tuning)
    y = signal.as_waveform(y)
    intervals = _checked_intervals(intervals)
    if not isinstance(intervals, str):
        bins_per_octave = len(intervals)
    signal.check_positive(hop_length=hop_length, n_bins=n_bins, bins_per_octave=bins_per_octave)
    signal.check_choice("pad_mode", pad_mode, signal.PAD_MODES)
    gamma, norm, sparsity, hashable = _check_filters(gamma, norm, sparsity, window)
    signal.check_choice("res_type", res_type, HALF_WIDTH)
    lowest, sr = C1 if fmin is None else signal.number("fmin", fmin), signal.number("sr", sr)
    filter_scale = signal.number("filter_scale", filter_scale)
    for name, value in (("sr", sr), ("fmin", lowest), ("filter_scale", filter_scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    design = Design(
        sr=sr,
        hop_length=int(hop_length),
        fmin=lowest * 2.0 ** (deviation / bins_per_octave),
        n_bins=int(n_bins),
        intervals=intervals,
        gamma=gamma,
        bins_per_octave=int(bins_per_octave),
        filter_scale=filter_scale,
        norm=norm,
        sparsity=sparsity,
        window=hashable,
        scale=signal.flag("scale", scale),
    )
    check_length(y.shape[-1], make_plan(design), pad_mode)
    return y, Transform(design, pad_mode, res_type)


def vqt(
    y: ArrayLike,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    n_bins: int = 84,
    intervals: str | Sequence[float] = "equal",
    gamma: float | None = None,
    bins_per_octave: int = 12,
    tuning: float | None = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1,
    sparsity: float = 0.01,
    window: signal.WindowSpec = "hann",
    scale: bool = True,
    pad_mode: str = "constant",
    res_type: str = "soxr_hq",
) -> jax.Array:
    """Variable-Q transform, equal to `librosa.vqt`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      hop_length: samples between frames; every octave below the first halves it. (To get 2**k frames
        a second from any sample rate, resample to 2**(k + j) Hz and use `hop_length=2**j`.)
      fmin: lowest centre frequency in Hz; default C1, 32.7 Hz.
      n_bins: number of bins.
      intervals: 'equal', 'pythagorean', 'ji3', 'ji5', 'ji7', or the ratios of one octave, in [1, 2).
      gamma: bandwidth added to each filter, in Hz; None for the ear's bandwidth, 0 for constant Q.
      bins_per_octave: bins per octave; if `intervals` are ratios, their number is used instead.
      tuning: deviation of the tuning in bins.
      filter_scale: factor by which the filters are lengthened.
      norm: norm of the filters.
      sparsity: fraction of each filter's spectrum that is dropped, in [0, 1).
      window: window of the filters: anything `scipy.signal.get_window` takes, or a function of the
        length. Define the function once: each new one compiles the transform again.
      scale: divide by the square root of the filters' lengths.
      pad_mode: how the ends are extended.
      res_type: resampler used for decimation; one of libsoxr's, see `resample`.

    Returns:
      complex64 `(..., n_bins, T)`, T = 1 + ceil(N / d) // (hop_length / d). Here d is the power of two,
        usually 1, by which the signal is decimated before the first octave. T is 1 + N // hop_length,
        or one more (as in librosa) where rounding N / d up completes a hop.

    Raises:
      ValueError: empty or integer `y`, `tuning=None`, bins above Nyquist, a `hop_length` that cannot
        be halved as often as needed, filters that cannot be made.

    >>> vqt(jnp.ones((2, 22050)), n_bins=24).shape
    (2, 24, 44)
    """
    y, transform = check_transform(
        y,
        sr=sr,
        hop_length=hop_length,
        fmin=fmin,
        n_bins=n_bins,
        intervals=intervals,
        gamma=gamma,
        bins_per_octave=bins_per_octave,
        tuning=tuning,
        filter_scale=filter_scale,
        norm=norm,
        sparsity=sparsity,
        window=window,
        scale=scale,
        pad_mode=pad_mode,
        res_type=res_type,
    )
    return _vqt(y, transform)


def cqt(
    y: ArrayLike,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    n_bins: int = 84,
    bins_per_octave: int = 12,
    tuning: float | None = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1,
    sparsity: float = 0.01,
    window: signal.WindowSpec = "hann",
    scale: bool = True,
    pad_mode: str = "constant",
    res_type: str = "soxr_hq",
) -> jax.Array:
    """Constant-Q transform, equal to `librosa.cqt`: `vqt` with `gamma=0` and equal intervals.

    The arguments, the complex64 result `(..., n_bins, T)`, T and the errors are those of `vqt`. Bin k
    is centred at `fmin * 2 ** (k / bins_per_octave)` Hz: 440 Hz, A4, is 45 semitones above C1.

    >>> y = jnp.sin(2 * jnp.pi * 440 * jnp.arange(22050, dtype=jnp.float32) / 22050)
    >>> jnp.abs(cqt(y)).mean(axis=-1).argmax().item()
    45
    """
    return vqt(
        y,
        sr=sr,
        hop_length=hop_length,
        fmin=fmin,
        n_bins=n_bins,
        gamma=0.0,
        bins_per_octave=bins_per_octave,
        tuning=tuning,
        filter_scale=filter_scale,
        norm=norm,
        sparsity=sparsity,
        window=window,
        scale=scale,
        pad_mode=pad_mode,
        res_type=res_type,
    )

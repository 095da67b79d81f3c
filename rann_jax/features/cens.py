"""Chroma energy normalised statistics (CENS), equal to librosa's with `tuning=0.0`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.chroma import chroma_cqt
from rann_jax.features.normalize import check_norm, normalize

# Thresholds of CENS, each adding a quarter (Mueller and Ewert, "Chroma Toolbox", ISMIR 2011).
QUANTIZATION_STEPS = (0.4, 0.2, 0.1, 0.05)


class Smoothing(NamedTuple):
    """The window that smooths CENS over time: checked, hashable as one static argument of `jax.jit`.

    Attributes:
      win_length: frames of the window, two more than are asked for: most windows are zero at their ends.
      window: made by `signal.hashable_window`.
    """

    win_length: int
    window: object

    @property
    def weights(self) -> np.ndarray:
        """The weights of the frames, `(win_length,)` float64, which add up to 1, last frame first."""
        samples = signal.symmetric_window(self.window, self.win_length)
        return samples[::-1] / np.sum(samples)


@functools.partial(jax.jit, static_argnames=("smoothing", "norm"))
def _energy_statistics(chroma: jax.Array, smoothing: Smoothing | None, norm: float | None) -> jax.Array:
    """Quantise and smooth a chromagram `(..., n_chroma, T)` that is not yet normalised."""
    chroma = normalize(chroma, 1, axis=-2)
    steps = jnp.stack([chroma > step for step in QUANTIZATION_STEPS])
    smooth = jnp.mean(steps.astype(jnp.float32), axis=0)
    if smoothing is not None:
        n = smoothing.win_length
        weights = jnp.asarray(smoothing.weights, jnp.float32)
        widths = [(0, 0)] * (chroma.ndim - 1) + [((n - 1) // 2, n // 2)]
        frames = signal.frame(jnp.pad(smooth, widths), n, 1)
        smooth = jnp.matmul(frames, weights, precision=jax.lax.Precision.HIGHEST)
    return normalize(smooth, norm, axis=-2)


def chroma_cens(
    y: ArrayLike,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    tuning: float | None = 0.0,
    n_chroma: int = 12,
    n_octaves: int = 7,
    bins_per_octave: int = 36,
    window: Any = None,
    norm: float | None = 2,
    win_len_smooth: int | None = 41,
    smoothing_window: signal.WindowSpec = "hann",
) -> jax.Array:
    """Chroma energy normalised statistics (CENS), equal to `librosa.feature.chroma_cens`.

    Each column of the chromagram of `chroma_cqt` is divided by its sum and quantised in steps; the result
    is smoothed over time. The gradient is zero everywhere because of the quantisation.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      hop_length: samples between frames; see `cqt`.
      fmin: lowest frequency in Hz; default C1, 32.7 Hz.
      tuning: deviation from A440 in bins of the transform.
      n_chroma: bins per octave of the result.
      n_octaves: number of octaves that are summed.
      bins_per_octave: bins per octave of the transform, a multiple of `n_chroma`.
      window: weights that spread each bin of the transform over its neighbours; None for none.
      norm: norm of each column of the result.
      win_len_smooth: frames of the smoothing window; None for no smoothing.
      smoothing_window: its specification; an array must have `win_len_smooth + 2` samples.

    Returns:
      float32 `(..., n_chroma, T)`, T as in `cqt`.

    Raises:
      ValueError: as `chroma_cqt`; `win_len_smooth` that is not positive.

    >>> chroma_cens(np.ones((2, 22050), np.float32), n_octaves=3).shape
    (2, 12, 44)
    """
    norm = check_norm(norm)
    smoothing = None
    if win_len_smooth is not None:
        signal.check_positive(win_len_smooth=win_len_smooth)
        win_length = int(win_len_smooth) + 2
        try:
            smoothing = Smoothing(win_length, signal.hashable_window(smoothing_window, win_length))
            _ = smoothing.weights  # raises ValueError here if the window is wrong
        except ValueError as error:
            raise ValueError(f"smoothing_window: {error}") from error
    chroma = chroma_cqt(
        y,
        sr=sr,
        hop_length=hop_length,
        fmin=fmin,
        norm=None,
        tuning=tuning,
        n_chroma=n_chroma,
        n_octaves=n_octaves,
        window=window,
        bins_per_octave=bins_per_octave,
    )
    return _energy_statistics(chroma, smoothing, norm)

"""The inverse of the short-time Fourier transform, equal to librosa's."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import clipwise
from rann_jax.features.stft import resolve_lengths


@functools.lru_cache(maxsize=64)
def _window_energy(window: Any, win_length: int, n_fft: int, hop_length: int, frames: int) -> np.ndarray:
    """Sum of the squared windows of all frames, `(n_fft + hop_length * (frames - 1),)`."""
    squared = np.square(signal.window_samples(window, win_length, n_fft))
    energy = np.zeros(n_fft + hop_length * (frames - 1))
    for start in range(0, hop_length * frames, hop_length):
        energy[start : start + n_fft] += squared
    return energy


@functools.partial(
    jax.jit, static_argnames=("n_fft", "hop_length", "win_length", "window", "start", "length")
)
def _istft(
    stft_matrix: jax.Array,
    n_fft: int,
    hop_length: int,
    win_length: int,
    window: Any,
    start: int,
    length: int,
) -> jax.Array:
    frames = stft_matrix.shape[-1]
    covered = n_fft + hop_length * (frames - 1)
    samples = signal.window_samples(window, win_length, n_fft).astype(np.float32)
    energy = _window_energy(window, win_length, n_fft, hop_length, frames)
    tiny = np.finfo(np.float32).tiny
    gain = np.divide(1, energy, out=np.ones_like(energy), where=energy > tiny).astype(np.float32)

    def overlap_add(matrices: jax.Array) -> jax.Array:
        y = jnp.fft.irfft(jnp.swapaxes(matrices, -1, -2), n=n_fft) * samples[None, None, :]
        # Overlap-add is the transpose of framing.
        framing = functools.partial(signal.frame, frame_length=n_fft, hop_length=hop_length)
        # Of the frames' own type: within shard_map, it says over which axes of the mesh they vary.
        padded = jax.typeof(y).update(shape=(matrices.shape[0], covered))
        (y,) = jax.linear_transpose(framing, padded)(y)
        y = (y * gain[None, :])[:, start : start + length]
        return jnp.pad(y, [(0, 0), (0, length - y.shape[-1])])

    return clipwise(overlap_add, stft_matrix, axes=2)


def istft(
    stft_matrix: ArrayLike,
    *,
    hop_length: int | None = None,
    win_length: int | None = None,
    n_fft: int | None = None,
    window: signal.WindowSpec = "hann",
    center: bool = True,
    length: int | None = None,
) -> jax.Array:
    """Inverse of `stft` by windowed overlap-add, equal to `librosa.istft`.

    Args:
      stft_matrix: complex `(..., 1 + n_fft // 2, T)`.
      hop_length: samples between frames; default `win_length // 4`.
      win_length: window length; default `n_fft`.
      n_fft: FFT length; default `2 * (F - 1)`; required if it was odd.
      window: as in `stft`.
      center: whether the frames were centred.
      length: number of samples to return, cropped or zero-padded; default all that the frames cover.

    Returns:
      float32 waveform `(..., N)`.

    Raises:
      ValueError: a matrix that is not complex or has no frames, or whose bins do not fit `n_fft`.

    >>> from rann_jax.features import stft
    >>> y = np.sin(np.arange(3000, dtype=np.float32) / 9)
    >>> y_again = istft(stft(y, n_fft=256), n_fft=256, length=3000)
    >>> bool(np.max(np.abs(y - y_again)) < 1e-5)
    True
    """
    stft_matrix = signal.as_array(stft_matrix)
    if not jnp.issubdtype(stft_matrix.dtype, jnp.complexfloating):
        raise ValueError(f"stft_matrix must be complex, got {stft_matrix.dtype}")
    if stft_matrix.ndim < 2 or stft_matrix.size == 0:
        raise ValueError(f"stft_matrix must be (..., F, T), got shape {tuple(stft_matrix.shape)}")
    n_fft = 2 * (stft_matrix.shape[-2] - 1) if n_fft is None else n_fft
    n_fft, hop_length, win_length = resolve_lengths(n_fft, hop_length, win_length)
    if stft_matrix.shape[-2] != 1 + n_fft // 2:
        raise ValueError(
            f"stft_matrix has {stft_matrix.shape[-2]} bins, but n_fft={n_fft} gives {1 + n_fft // 2}"
        )
    start = n_fft // 2 if signal.flag("center", center) else 0
    frames = stft_matrix.shape[-1]
    if length is None:
        length = n_fft + hop_length * (frames - 1) - 2 * start
    else:
        signal.check_positive(length=length)
        # Frames that begin beyond the requested end contribute nothing.
        frames = min(frames, -(-(length + 2 * start) // hop_length))
    return _istft(
        jnp.asarray(stft_matrix, jnp.complex64)[..., :frames],
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        window=signal.hashable_window(window, win_length),
        start=start,
        length=int(length),
    )

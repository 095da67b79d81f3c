"""Short-time Fourier transform, equal to librosa's, and the framing that other features share.

Frame `t` is the `n_fft` samples centred at sample `t * hop_length` (`center=True`: the signal is
padded by `n_fft // 2` on both sides, T = 1 + N // hop_length for even `n_fft`), or those that begin
there (`center=False`, T = 1 + (N - n_fft) // hop_length).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise
from rann_jax.features.power import spectrum


def resolve_lengths(n_fft: int, hop_length: int | None, win_length: int | None) -> tuple[int, int, int]:
    """Return `(n_fft, hop_length, win_length)` with librosa's defaults filled in and checked."""
    win_length = n_fft if win_length is None else win_length
    signal.check_positive(n_fft=n_fft, win_length=win_length)
    hop_length = max(1, win_length // 4) if hop_length is None else hop_length
    signal.check_positive(hop_length=hop_length)
    if n_fft < win_length:
        raise ValueError(
            f"n_fft={n_fft} is shorter than the window, win_length={win_length}:"
            f" use n_fft={win_length} or more"
        )
    return int(n_fft), int(hop_length), int(win_length)


def centered(y: jax.Array, n_fft: int, center: bool, pad_mode: str) -> jax.Array:
    """Pad `(..., N)` by `n_fft // 2` on both sides if `center`, so that frames are centred."""
    if not center:
        return y
    widths = [(0, 0)] * (y.ndim - 1) + [(n_fft // 2, n_fft // 2)]
    return jnp.pad(y, widths, mode=pad_mode)


class Framing(NamedTuple):
    """How a waveform is cut into frames: checked settings, hashable as one static argument of `jax.jit`."""

    n_fft: int
    hop_length: int
    win_length: int
    window: object  # made by `signal.hashable_window`
    center: bool
    pad_mode: str

    @property
    def samples(self) -> np.ndarray:
        """The window, `(n_fft,)` float64."""
        return signal.window_samples(self.window, self.win_length, self.n_fft)

    def padded(self, y: jax.Array) -> jax.Array:
        """Pad `(..., N)` so that the first frame begins at the first sample of the result."""
        return centered(y, self.n_fft, self.center, self.pad_mode)


def spectra(y: jax.Array, framing: Framing) -> jax.Array:
    """Return complex spectra `(..., T, 1 + n_fft // 2)`: frames first, as the FFT returns them."""
    frames = signal.frame(framing.padded(y), framing.n_fft, framing.hop_length)
    return spectrum(frames, framing.samples, framing.n_fft)


def check_framing(
    y: Any,
    n_fft: int,
    hop_length: int | None,
    win_length: int | None,
    window: signal.WindowSpec,
    center: bool,
    pad_mode: str,
) -> tuple[jax.Array, Framing]:
    """Check a waveform and its framing arguments; return the waveform as float32 and a `Framing`."""
    n_fft, hop_length, win_length = resolve_lengths(n_fft, hop_length, win_length)
    signal.check_choice("pad_mode", pad_mode, signal.PAD_MODES)
    y = signal.as_waveform(y)
    if not center and y.shape[-1] < n_fft:
        raise ValueError(
            f"y has {y.shape[-1]} samples, fewer than n_fft={n_fft}:"
            " use center=True, a shorter n_fft or a longer clip"
        )
    signal.warn_if_swapped(y, n_fft)
    hashable = signal.hashable_window(window, win_length)
    framing = Framing(n_fft, hop_length, win_length, hashable, signal.flag("center", center), pad_mode)
    _ = framing.samples  # raises ValueError here if the window is wrong
    return y, framing


@functools.partial(jax.jit, static_argnames="framing")
def transformed(y: jax.Array, framing: Framing) -> jax.Array:
    """Return the transform `(..., 1 + n_fft // 2, T)` of a checked waveform."""

    def transform(frames: jax.Array) -> jax.Array:
        return spectrum(frames, framing.samples, framing.n_fft)

    def of_clips(clips: jax.Array) -> jax.Array:
        return signal.map_frames(transform, framing.padded(clips), framing.n_fft, framing.hop_length)

    return batchwise(of_clips, y)


def stft(
    y: ArrayLike,
    *,
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: signal.WindowSpec = "hann",
    center: bool = True,
    pad_mode: str = "constant",
) -> jax.Array:
    """Short-time Fourier transform, equal to `librosa.stft`.

    Args:
      y: waveform `(..., N)`, floating.
      n_fft: samples per frame, and length of the FFT.
      hop_length: samples between frames; default `win_length // 4`.
      win_length: window length, zero-padded on both sides to `n_fft`; default `n_fft`.
      window: anything `scipy.signal.get_window` takes, a function of the length, or an array.
      center: whether frame t is centred at sample `t * hop_length`; otherwise it begins there.
      pad_mode: how the ends are extended: constant (zeros), edge, reflect or symmetric.

    Returns:
      complex64 `(..., 1 + n_fft // 2, T)`.

    Raises:
      ValueError: empty or integer `y`, `n_fft` shorter than the window, a clip shorter than
        `n_fft` with `center=False`, an unknown pad mode or window.

    >>> stft(np.ones((2, 4000), np.float32), n_fft=512, hop_length=100).shape
    (2, 257, 41)
    """
    y, framing = check_framing(y, n_fft, hop_length, win_length, window, center, pad_mode)
    return transformed(y, framing)

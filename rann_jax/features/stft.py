"""Short-time Fourier transform, its inverse, and decibels, equal to librosa's.

Frame `t` is the `n_fft` samples centred at sample `t * hop_length` (`center=True`: the signal is
padded by `n_fft // 2` on both sides, T = 1 + N // hop_length for even `n_fft`), or those that begin
there (`center=False`, T = 1 + (N - n_fft) // hop_length).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise, clipwise
from rann_jax.features.power import spectrum, squared, to_exponent


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
        padded = jax.ShapeDtypeStruct((matrices.shape[0], covered), jnp.float32)
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


def power_to_db(
    S: ArrayLike,
    *,
    ref: float | Callable = 1.0,
    amin: float = 1e-10,
    top_db: float | None = 80.0,
) -> jax.Array:
    """Power to decibels, `10 log10(max(S, amin) / max(ref, amin))`, as `librosa.power_to_db`.

    A reference function and the `top_db` floor apply to each clip, the last two axes, on its own, as in
    librosa 1.0 (0.11 takes the maximum of the whole batch).

    Args:
      S: power `(..., F, T)`, floating.
      ref: reference power, finite, or a function called as `ref(S, axis=(-2, -1), keepdims=True)`, such as
        `jnp.max`. Inside `jax.jit` it must be a jax.numpy function: NumPy's cannot take traced values.
      amin: smallest power, a positive float32; below it the gradient is zero.
      top_db: distance of the floor below the clip's peak, in dB; None for no floor.

    Returns:
      float32 dB, the shape of `S`.

    Raises:
      ValueError: integer or empty `S`, `amin` too small or too large for float32, `top_db` negative, `ref`
        not finite or neither a number nor a function.

    >>> power_to_db(np.array([[1.0, 10.0, 0.0]], np.float32), top_db=30.0).tolist()
    [[0.0, 10.0, -20.0]]
    """
    amin = signal.number("amin", amin)
    if not signal.is_float32(amin):
        raise ValueError(f"amin={amin} must be at least 1.2e-38, the smallest normal float32")
    top_db = None if top_db is None else signal.number("top_db", top_db)
    if top_db is not None and not top_db >= 0:  # NaN too
        raise ValueError(f"top_db={top_db} must not be negative")
    S = signal.as_waveform(S, "S")
    reference = ref(S, axis=_clip_axes(S), keepdims=True) if callable(ref) else _reference(ref)
    return _decibels(S, reference, amin=amin, top_db=top_db)


def _reference(ref: Any, exponent: int = 1) -> Any:
    """Return `|ref| ** exponent` of a reference that is not a function; ValueError unless it is finite."""
    if isinstance(ref, jax.Array):  # its values may not be known yet
        return jnp.abs(ref) ** exponent
    try:
        level = np.abs(np.asarray(ref)).astype(np.float64) ** exponent
    except (TypeError, ValueError):
        raise ValueError(f"ref must be a number or a function, got {ref!r}") from None
    if not np.all(level <= np.finfo(np.float32).max):  # NaN too
        raise ValueError(
            f"ref={ref!r} must be finite, also as float32: give a level, or a function such as jnp.max"
        )
    return level


@functools.partial(jax.jit, static_argnames=("amin", "top_db"))
def _decibels(S: jax.Array, reference: Any, *, amin: float, top_db: float | None) -> jax.Array:
    reference = jnp.abs(jnp.asarray(reference, jnp.float32))
    if not reference.ndim:
        reference = reference.reshape((1,) * S.ndim)
    power, reference = (jnp.maximum(level, jnp.float32(amin)) for level in (S, reference))
    decibels = 10 * (jnp.log10(power) - jnp.log10(reference))
    if top_db is None:
        return decibels
    return jnp.maximum(decibels, jnp.max(decibels, axis=_clip_axes(S), keepdims=True) - top_db)


def _clip_axes(S: jax.Array) -> tuple[int, ...]:
    return (-2, -1) if S.ndim > 1 else (-1,)


def amplitude_to_db(
    S: ArrayLike,
    *,
    ref: float | Callable = 1.0,
    amin: float = 1e-5,
    top_db: float | None = 80.0,
) -> jax.Array:
    """Amplitude to decibels, `20 log10(max(|S|, amin) / max(ref, amin))`, as in librosa.

    Args:
      S: amplitude `(..., F, T)`, floating or complex.
      ref: reference amplitude, or a function of `|S|` as in `power_to_db`.
      amin: smallest amplitude, at least 1.1e-19, so that its square is a float32.
      top_db: as in `power_to_db`.

    Returns:
      float32 dB, the shape of `S`.

    Raises:
      ValueError: as `power_to_db`.

    >>> amplitude_to_db(np.array([[1.0, 10.0]], np.float32)).tolist()
    [[0.0, 20.0]]
    """
    amin = signal.number("amin", amin)
    if not (amin > 0 and signal.is_float32(amin * amin)):
        raise ValueError(f"amin={amin} must be at least 1.1e-19, so that its square is a normal float32")
    if not hasattr(S, "dtype"):
        S = np.asarray(S)
        S = S.astype(np.float32) if S.dtype.kind in "biuf" else S
    S = signal.as_array(S)
    if jnp.issubdtype(S.dtype, jnp.complexfloating):
        power = squared(jnp.asarray(S))
    else:
        power = jnp.square(signal.as_waveform(S, "S"))
    if callable(ref):
        amplitude_ref = ref

        def squared_ref(power: jax.Array, **axes: Any) -> jax.Array:
            return jnp.square(amplitude_ref(to_exponent(power, 1.0), **axes))

        return power_to_db(power, ref=squared_ref, amin=amin**2, top_db=top_db)
    return power_to_db(power, ref=_reference(ref, exponent=2), amin=amin**2, top_db=top_db)

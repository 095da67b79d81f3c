"""Input handling that all features share: floating waveforms, windows and overlapping frames.

A waveform is an array `(..., N)` of any floating type with any leading axes; the features always compute
in float32. Arguments that cannot work are rejected here, before anything is traced, with a ValueError
that names the argument and says how to fix it.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from numpy.typing import ArrayLike

WindowSpec: TypeAlias = str | float | tuple | Callable[[int], np.ndarray] | np.ndarray

# Modes that librosa.stft accepts and that jax.numpy.pad computes exactly.
PAD_MODES = ("constant", "edge", "reflect", "symmetric")

# Number of frames of a clip that a CPU transforms at a time, see `map_frames`.
FRAMES_PER_CHUNK = 64


def as_array(values: ArrayLike) -> jax.Array | np.ndarray:
    """Return arrays of JAX unchanged; others, such as lists and torch's, as NumPy's in JAX's byte order."""
    if isinstance(values, jax.Array):
        return values
    known = values if isinstance(values, np.ndarray) else np.asarray(values)
    return known if known.dtype.isnative else known.astype(known.dtype.newbyteorder("="))


def as_waveform(y: ArrayLike, name: str = "y") -> jax.Array:
    """Return `y` `(..., N)` as float32; ValueError if it is empty or not floating."""
    y = as_array(y)
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise ValueError(f"{name} must be floating-point, got {y.dtype}: {_made_floating(name, y.dtype)}")
    if y.ndim == 0 or y.size == 0:
        raise ValueError(
            f"{name} must hold samples along its last axis, got shape {tuple(y.shape)}:"
            " give at least one sample of at least one clip"
        )
    if isinstance(y, jax.Array) and y.dtype == np.float32 and not y.weak_type:
        return y  # same result as the line below, without the overhead of a JAX call
    return jnp.asarray(y, dtype=jnp.float32)


def _made_floating(name: str, dtype: Any) -> str:
    """Return the end of a message that says how to make an array of another type floating."""
    if name != "y":
        return f"convert it with {name}.astype(np.float32)"
    # Of 64 bits there are no recordings: such samples are of a smaller type, in a list or after a sum.
    is_pcm = jnp.issubdtype(dtype, jnp.signedinteger) and dtype.itemsize < 8
    kind = dtype if is_pcm else np.dtype(np.int16)
    return f"scale it first, e.g. {kind} with y / {-int(jnp.iinfo(kind).min)}"


def warn_if_swapped(y: jax.Array, n_fft: int) -> None:
    """Warn if the axes of a waveform look swapped: the last is shorter than a frame and than the one before.

    librosa warns of every waveform shorter than a frame. A short clip is fine here. Of symbolic shapes, as in
    jax.export, nothing is known.
    """
    if (
        y.ndim > 1
        and all(isinstance(length, int) for length in y.shape[-2:])
        and y.shape[-1] < min(n_fft, y.shape[-2])
    ):
        warnings.warn(
            f"n_fft={n_fft} is too large for a waveform of {y.shape[-1]} samples, the last axis of {y.shape}:"
            " if these are channels, as soundfile gives them, (N, channels), give y.T",
            stacklevel=_caller_level(),
        )


def _caller_level() -> int:
    """Return the `stacklevel` of a warning of the function that calls this one: who called the features."""
    level, frame = 0, inspect.currentframe()
    while frame and str(frame.f_globals.get("__name__")).startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    return level


def number(name: str, value: Any) -> float:
    """Return an argument as a float; ValueError that names it unless it is one number, of any kind.

    >>> number("sr", np.int16(8000)), number("sr", jnp.float32(8000))
    (8000.0, 8000.0)
    """
    try:
        if isinstance(value, str | bytes | bool | np.bool_):  # float() would take these
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def is_whole(value: Any) -> bool:
    """Return whether an argument is an integer, Python's or NumPy's, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def flag(name: str, value: Any) -> bool:
    """Return an argument as a bool; ValueError that names it unless it is true or false, or 1 or 0."""
    if not isinstance(value, int | np.integer | np.bool_) or value not in (0, 1):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ValueError unless an argument is one of the allowed words."""
    if not (isinstance(value, str) and value in allowed):
        raise ValueError(f"{name}={value!r} is not supported: use one of {tuple(allowed)}")


def check_positive(**counts: int) -> None:
    """Raise ValueError unless every argument is a positive integer."""
    for name, value in counts.items():
        if not is_whole(value) or value <= 0:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")


def is_float32(value: float) -> bool:
    """Return whether a positive number fits a normal float32, neither too small nor too large.

    >>> is_float32(1e-10), is_float32(1e-39), is_float32(1e39), is_float32(float("nan"))
    (True, False, False, False)
    """
    limits = np.finfo(np.float32)
    return float(limits.tiny) <= value <= float(limits.max)


def check_rate(sr: float) -> float:
    """Return a sample rate in Hz as a float; ValueError unless it is positive and finite."""
    rate = number("sr", sr)
    if not 0 < rate < math.inf:
        raise ValueError(f"sr must be a positive sample rate in Hz, got {sr!r}")
    return rate


def check_band(fmin: float, fmax: float | None, sr: float) -> tuple[float, float, float]:
    """Return fmin, fmax (Nyquist for None) and sr, in Hz; ValueError unless 0 <= fmin < fmax <= sr / 2."""
    fmin, sr = number("fmin", fmin), check_rate(sr)
    top = sr / 2 if fmax is None else number("fmax", fmax)
    if top > sr / 2:
        raise ValueError(
            f"fmax={top:g} Hz is above Nyquist, {sr / 2:g} Hz at sr={sr:g}:"
            f" use fmax={sr / 2:g} or less, or fmax=None"
        )
    if not 0 <= fmin < top:
        raise ValueError(f"fmin={fmin:g} Hz must be at least 0 and below fmax={top:g} Hz")
    return fmin, top, sr


def hashable_window(window: WindowSpec, win_length: int) -> Any:
    """Return a window specification that can be a cache key; arrays and function results become tuples.

    A function is called here, once. It cannot be the key itself: each evaluation of a lambda makes a new one.
    """
    try:
        hashable = as_tuples(window(win_length) if callable(window) else window)
    except (TypeError, ValueError) as error:
        raise ValueError(f"window cannot be made: {error}") from error
    check_window(hashable)
    return hashable


def check_window(window: Any) -> None:
    """Raise ValueError unless a window is text, a finite number or a tuple, or a function that makes one."""
    if callable(window) or isinstance(window, str) or (isinstance(window, tuple) and window):
        return
    if not isinstance(window, Real) or not math.isfinite(window):
        raise ValueError(
            f"window must be what scipy.signal.get_window takes, a function of the length or an array,"
            f" got {window!r}"
        )


def as_tuples(value: Any) -> Any:
    """Convert arrays and lists, also within tuples, to tuples, and NumPy's scalars to Python's.

    A cache that compares a scalar of NumPy with a tuple would get an array, and fail. The rest is unchanged.

    >>> as_tuples(("general_cosine", np.array([0.5, 0.5]))), as_tuples(("kaiser", np.float32(8)))
    (('general_cosine', (0.5, 0.5)), ('kaiser', 8.0))
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | jax.Array):
        value = np.asarray(value, dtype=np.float64).tolist()
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=128)
def window_samples(window: Any, win_length: int, n_fft: int) -> np.ndarray:
    """Return the periodic window of `win_length`, zero-padded on both sides to `(n_fft,)`, float64.

    `window` is made by `hashable_window`: anything `scipy.signal.get_window` takes, or the window's samples.
    """
    samples = _samples(window, win_length, periodic=True)
    left = (n_fft - win_length) // 2
    return np.pad(samples, (left, n_fft - win_length - left))


def symmetric_window(window: Any, win_length: int) -> np.ndarray:
    """Return the symmetric window `(win_length,)`, float64; `window` as in `window_samples`."""
    return _samples(window, win_length, periodic=False)


def _samples(window: Any, win_length: int, periodic: bool) -> np.ndarray:
    sampled = isinstance(window, tuple) and not isinstance(window[0], str)
    try:
        if sampled:
            samples = np.asarray(window, dtype=np.float64)
        else:
            samples = scipy.signal.get_window(window, win_length, fftbins=periodic)
    except (TypeError, ValueError) as error:
        told = f" of {len(window)} samples" if sampled else f"={window!r}"
        raise ValueError(f"window{told} cannot be made: {error}") from error
    if samples.shape != (win_length,):
        raise ValueError(f"window has shape {samples.shape}, but win_length is {win_length}: they must agree")
    if not np.all(np.isfinite(samples)):
        raise ValueError("window must have finite samples")
    return samples


def n_frames(n_samples: int, frame_length: int, hop_length: int) -> int:
    """Return how many whole frames fit in `n_samples` without padding."""
    return 1 + (n_samples - frame_length) // hop_length


def frame(y: jax.Array, frame_length: int, hop_length: int) -> jax.Array:
    """Cut `(..., N)` into overlapping frames `(..., T, frame_length)`; an incomplete last frame is dropped.

    Whole slices are gathered: measured on CPU, this beats gathering single samples by a third, and
    concatenating shifted blocks by three. (Framing by convolution, the other usual way, triggers long
    autotuning on GPUs.)
    """
    if y.shape[-1] < frame_length:
        raise ValueError(
            f"y has {y.shape[-1]} samples, but a frame needs {frame_length}:"
            " give a longer signal, a shorter frame, or center=True"
        )
    starts = hop_length * np.arange(n_frames(y.shape[-1], frame_length, hop_length), dtype=np.int32)

    def one_frame(start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(y, start, frame_length, axis=-1)

    return jax.vmap(one_frame, out_axes=-2)(jnp.asarray(starts))


def map_frames(
    function: Callable[[jax.Array], jax.Array], y: jax.Array, frame_length: int, hop_length: int
) -> jax.Array:
    """Apply `function`, `(..., T, frame_length)` -> `(..., T, K)`, to the frames of `(..., N)`.

    Frames are independent, so a CPU processes a few at a time: they stay in its cache, and their results are
    transposed while they are still there. Measured, this halves the time of a mel spectrogram. Other devices
    process all frames at once.

    Returns:
      `(..., K, T)`: frames last.
    """

    def at_once(y: jax.Array) -> jax.Array:
        return jnp.swapaxes(function(frame(y, frame_length, hop_length)), -1, -2)

    def in_chunks(y: jax.Array) -> jax.Array:
        clips = y.reshape(-1, y.shape[-1])
        chunks = -(-frames // FRAMES_PER_CHUNK)
        samples = (FRAMES_PER_CHUNK - 1) * hop_length + frame_length
        chunk = jax.eval_shape(at_once, jax.ShapeDtypeStruct((1, samples), y.dtype))

        def one_chunk(i: jax.Array, out: jax.Array) -> jax.Array:
            clip = i // chunks
            first = jnp.minimum(i % chunks * FRAMES_PER_CHUNK, frames - FRAMES_PER_CHUNK)
            part = jax.lax.dynamic_slice(clips, (clip, first * hop_length), (1, samples))
            return jax.lax.dynamic_update_slice(out, at_once(part), (clip, 0, first))

        out = jnp.zeros((clips.shape[0], chunk.shape[-2], frames), chunk.dtype)
        out = jax.lax.fori_loop(0, clips.shape[0] * chunks, one_chunk, out)
        return out.reshape(*y.shape[:-1], *out.shape[-2:])

    frames = n_frames(y.shape[-1], frame_length, hop_length)
    if frames <= FRAMES_PER_CHUNK:
        return at_once(y)
    return jax.lax.platform_dependent(y, cpu=in_chunks, default=at_once)

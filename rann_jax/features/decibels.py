"""Decibels of power and of amplitude, as in librosa, with the floor below the peak of each clip."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.power import squared, to_exponent


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

"""Normalisation of columns, as by `librosa.util.normalize` with its defaults."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rann_jax.features import signal

TINY = float(np.finfo(np.float32).tiny)


def check_norm(norm: float | None, name: str = "norm") -> float | None:
    """Return a norm, a number as a float; ValueError unless it is None, infinite, or at least 0."""
    if norm is None:
        return None
    order = signal.number(name, norm)
    if math.isnan(order) or (order < 0 and order != -math.inf):
        raise ValueError(f"{name}={norm!r} must be a number of at least 0, infinity or None")
    return order


def normalize(S: jax.Array, norm: float | None, axis: int) -> jax.Array:
    """Divide real `S` by its norm along `axis`; zeros stay zero, with a finite gradient.

    Args:
      S: float32, any shape.
      norm: inf for the maximum, -inf for the minimum, 0 for the number of non-zeros, p > 0 for
        the p-norm of the magnitudes; None to return `S` unchanged.
      axis: axis along which the norm is taken.
    """
    if norm is None:
        return S
    if norm == 0:
        length = jnp.sum((S != 0).astype(jnp.float32), axis=axis, keepdims=True)
        return S / jnp.maximum(length, jnp.float32(1))
    extreme = jnp.min if norm == -math.inf else jnp.max
    unit = jax.lax.stop_gradient(extreme(jnp.abs(S), axis=axis, keepdims=True))
    silent = unit < TINY
    # Scaled by a constant first, so that neither powers nor the square in a quotient's derivative overflow
    # or underflow float32.
    S = S / jnp.where(silent, jnp.float32(1), unit)
    magnitude = jnp.abs(S)
    if math.isinf(norm):
        return S / jnp.where(silent, jnp.float32(1), extreme(magnitude, axis=axis, keepdims=True))
    nonzero = magnitude > 0
    powers = jnp.power(jnp.where(nonzero, magnitude, jnp.float32(1)), jnp.float32(norm))
    total = jnp.sum(jnp.where(nonzero, powers, jnp.float32(0)), axis=axis, keepdims=True)
    total = jnp.where(silent, jnp.float32(1), total)
    return S / jnp.power(total, jnp.float32(1 / norm))

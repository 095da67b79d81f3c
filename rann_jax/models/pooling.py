"""Maxima with gradients that no rounding can break.

The gradient of `jnp.max` goes to all values that equal the maximum, divided by their number. For the
comparison a compiler may recompute the values and round them differently, especially in bfloat16. Then none
equals the maximum, and zero over zero is NaN. In the wavegram, every gradient was seen to become NaN.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp


@jax.custom_jvp
def largest(x: jax.Array) -> jax.Array:
    """Return the maximum `(B, C)` of `(B, N, C)` over N; its gradient goes to its first position."""
    return x.max(axis=1)


@largest.defjvp
def _largest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (slope,) = primals, tangents
    there = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) == jnp.argmax(x, axis=1, keepdims=True)
    return largest(x), jnp.sum(jnp.where(there, slope, jnp.zeros_like(slope)), axis=1)


def greatest(candidates: Iterable[jax.Array]) -> jax.Array:
    """Return the elementwise maximum of arrays of one shape; `jnp.maximum` of pairs has safe gradients."""
    return functools.reduce(jnp.maximum, candidates)

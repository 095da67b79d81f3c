"""Maxima with gradients that no rounding can break.

The gradient of `jnp.max` goes to all values that equal the maximum, divided by their number. A compiler may
compute the values a second time to compare, and round otherwise, the more so in bfloat16. Then none is equal,
and zero over zero is NaN: in the wavegram every gradient was seen to become NaN.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp


@jax.custom_jvp
def largest(x: jax.Array) -> jax.Array:
    """The maximum `(B, C)` of `(B, N, C)` over N positions; its gradient goes to the first that has it."""
    return x.max(axis=1)


@largest.defjvp
def _largest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (slope,) = primals, tangents
    there = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) == jnp.argmax(x, axis=1, keepdims=True)
    return largest(x), jnp.sum(jnp.where(there, slope, jnp.zeros_like(slope)), axis=1)


def greatest(candidates: Iterable[jax.Array]) -> jax.Array:
    """The maxima of arrays of one shape, pair by pair: `jnp.maximum` compares its own arguments."""
    return functools.reduce(jnp.maximum, candidates)

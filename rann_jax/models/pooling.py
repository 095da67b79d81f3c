"""The maximum over all positions, with a gradient that no rounding can break."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def largest(x: jax.Array) -> jax.Array:
    """The maximum `(B, C)` of `(B, N, C)` over the N positions; its gradient goes to the first that has it.

    That of `jnp.max` goes to all values that equal the maximum, divided by their number. A compiler may
    compute them a second time to compare, and round otherwise, the more so in bfloat16: then none is equal,
    and zero over zero is NaN. Here the position is what is compared.
    """
    return x.max(axis=1)


@largest.defjvp
def _largest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (slope,) = primals, tangents
    there = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) == jnp.argmax(x, axis=1, keepdims=True)
    return largest(x), jnp.sum(jnp.where(there, slope, jnp.zeros_like(slope)), axis=1)

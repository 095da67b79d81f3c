"""Batch normalisation and the activation that follows it in every network here, as one operation.

With JAX's automatic derivative, the pair stores float32 copies of the centred values for the backward pass.
This operation stores only its input, in the network's type, and recomputes the rest. On CPUs that saves a
third of a training step's memory and a seventh of its time; XLA for TPUs does it by itself
(docs/performance.md).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

MOMENTUM = 0.9  # weight of the old running statistics; PyTorch's momentum is 0.1
EPSILON = 1e-5  # as in PyTorch

# What is stored for the backward pass: x, scale, bias, mean, and the inverse of the standard deviation.
Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


class BatchNorm(nn.Module):
    """Batch normalisation, then a (leaky) ReLU. Supports reverse-mode derivatives only.

    The parameters `scale` and `bias` and the statistics `mean` and `var` are float32 and named as in flax's
    BatchNorm. All variances, including the running one, are biased. Under jit the statistics are those of the
    global batch.

    Attributes:
      axis: the axis that is kept; statistics are taken over all others.
      slope: slope of the activation for negative values: 0 for a ReLU, up to 1 for no activation.
      dtype: type of the result; None for that of the input. Computation is at least in float32.
      columns: how many positions the axis holds side by side, each with all channels (`convolution.packed`).
    """

    axis: int = -1
    slope: float = 1.0
    dtype: jax.typing.DTypeLike | None = None
    columns: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise and activate x; the shape stays the same.

        In training the statistics are the batch's, and the running statistics are updated; otherwise the
        running statistics are used. `train` is an argument of the call, so that a frozen layer can run in
        inference mode while others train.

        Raises:
          ValueError: `slope` is not between 0 and 1.
        """
        if not 0 <= self.slope <= 1:
            raise ValueError(f"the slope of an activation must be from 0 to 1, not {self.slope}")
        axis, dtype = self.axis % x.ndim, jnp.dtype(self.dtype or x.dtype)
        shape = (x.shape[axis] // self.columns,)
        # The type is given because in programs that enable float64 the default is that.
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        if not train:
            factor = scale * lax.rsqrt(running_var.value + EPSILON)
            y = affine(x, factor, bias - factor * running_mean.value, axis)
            return activated(y, self.slope).astype(dtype)
        y, mean, var = normalised(x, scale, bias, axis, self.slope, dtype)
        if not self.is_initializing():
            running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
            running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        return y


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalised(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis: int, slope: float, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x normalised by its own statistics and activated, its mean and its variance.

    The mean and the variance have no gradients.
    """
    return _forward(x, scale, bias, axis, slope, dtype)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axis: int, slope: float, dtype: jnp.dtype
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Kept]:
    others, wide, channels = others_than(axis, x), widened(x), scale.size
    mean = by_channel(wide.mean(others), channels).mean(0)
    # This form needs one pass over x; rounding can make it negative, hence the maximum with 0.
    square = by_channel(jnp.square(wide).mean(others), channels).mean(0)
    var = jnp.maximum(0, square - jnp.square(mean))
    inverse = lax.rsqrt(var + EPSILON)
    factor = scale * inverse
    y = affine(x, factor, bias - factor * mean, axis)
    # Same as `activated`, but without the comparison, which XLA for GPUs would store for the backward pass.
    y = y if slope == 1 else jnp.maximum(y, slope * y)
    return (y.astype(dtype), mean, var), (x, scale, bias, mean, inverse)


def _backward(
    axis: int, slope: float, dtype: jnp.dtype, kept: Kept, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, inverse = kept
    others, dy = others_than(axis, x), widened(cotangents[0])
    factor = scale * inverse
    if slope != 1:
        dy = jnp.where(affine(x, factor, bias - factor * mean, axis) > 0, dy, slope * dy)
    d_bias = by_channel(dy.sum(others), scale.size).sum(0)
    products = (dy * (widened(x) - along(axis, x, mean))).sum(others)
    d_scale = inverse * by_channel(products, scale.size).sum(0)
    # With n values and z = inverse (x - mean): dx = factor (dy - d_bias / n - z d_scale / n).
    n = x.size // scale.size
    pull = factor * inverse * d_scale / n
    dx = along(axis, x, factor) * dy - affine(x, pull, factor * d_bias / n - pull * mean, axis)
    return dx.astype(x.dtype), d_scale, d_bias


normalised.defvjp(_forward, _backward)


def affine(x: jax.Array, factor: jax.Array, shift: jax.Array, axis: int) -> jax.Array:
    """Return factor x + shift, widened; factor and shift have one value for each channel.

    It is not written as factor (x - mean) + bias, because XLA would store x - mean for the backward pass.
    """
    return widened(x) * along(axis, x, factor) + along(axis, x, shift)


def along(axis: int, x: jax.Array, values: jax.Array) -> jax.Array:
    """Return one value for each channel, repeated for all columns that the axis of x holds, to broadcast."""
    return jnp.expand_dims(jnp.tile(values, x.shape[axis] // values.size), others_than(axis, x))


def by_channel(values: jax.Array, channels: int) -> jax.Array:
    """Return values along the kept axis as (columns, channels)."""
    return values.reshape(-1, channels)


def activated(y: jax.Array, slope: float) -> jax.Array:
    """Return the leaky ReLU of y; a slope of 1 is the identity."""
    return y if slope == 1 else jnp.where(y > 0, y, slope * y)


def widened(x: jax.Array) -> jax.Array:
    """Return x in float32, or in float64 if that is its type."""
    return x.astype(np.promote_types(x.dtype, np.float32))


def others_than(axis: int, x: jax.Array) -> tuple[int, ...]:
    """Return all axes of x except one."""
    return tuple(other for other in range(x.ndim) if other != axis)

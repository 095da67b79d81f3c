"""XLA's own two-dimensional convolution of images, and code that the other forms share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Form = Callable[[jax.Array, jax.Array, Pair, Padding], jax.Array]


def plain(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Return the convolution (B, H', W', D) of images x (B, H, W, C) with a kernel (h, w, C, D)."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def kernel_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding, form: Form = plain
) -> jax.Array:
    """Return the gradient of the kernel for slopes (B, H', W', D), as JAX derives it from `form`."""
    return jax.linear_transpose(lambda kernel: form(x, kernel, strides, padding), kernel)(slope)[0]


def input_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding, form: Form = plain
) -> jax.Array:
    """Return the gradient of the images x, of which only the shape is read, as `kernel_gradient` does."""
    return jax.linear_transpose(lambda x: form(x, kernel, strides, padding), x)(slope)[0]


def with_shifted(kernel: jax.Array, columns: int, stride: int = 1) -> jax.Array:
    """Return a kernel (h, w + stride (columns - 1), C, columns x D): copies shifted by the stride each.

    With strides (1, columns x stride) it gives the results of `columns` neighbours at once; some products are
    with zeros.
    """
    height, _, channels, features = kernel.shape
    last = stride * (columns - 1)
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, last - shift), (0, 0), (0, 0)))
        for shift in range(0, last + 1, stride)
    ]
    return jnp.stack(shifted, axis=3).reshape(height, -1, channels, columns * features)

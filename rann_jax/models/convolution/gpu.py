"""Convolutions in forms for NVIDIA's GPUs.

cuDNN computes a convolution as a matrix product whose tiles are 64 channels wide and more: with fewer, the
rest is idle; and it knows nothing quick for images of one channel. Measured on an H100 in bfloat16
(docs/performance.md).
"""

import functools

import jax
import jax.numpy as jnp

from rann_jax.models.convolution.plain import Padding, Pair, plain, with_shifted

# Channels, in and out, of which two columns at a time are faster.
NARROW = 64
# Channels of an image whose patches are cheap to copy,
VERY_FEW = 2
# each patch to a multiple of so many values, which the GPU reads at once.
ALIGNED = 8


def convolved(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution, in the form that suits its channels."""
    height, width, channels, features = kernel.shape
    if strides != (1, 1):
        return plain(x, kernel, strides, padding)
    if channels <= VERY_FEW:
        at_once = (height, width) == (1, 1) and padding == ((0, 0), (0, 0))
        return scaled(x, kernel[0, 0]) if at_once else of_patches(x, kernel, padding)
    columns = x.shape[2] + sum(padding[1])
    if max(channels, features) < NARROW and width % 2 and columns % 2 == 0:
        return in_pairs(x, kernel, padding)
    return plain(x, kernel, strides, padding)


def kernel_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
    """The gradient of the kernel for slopes (B, H', W', D), as JAX derives it from the form."""
    return jax.linear_transpose(lambda kernel: convolved(x, kernel, strides, padding), kernel)(slope)[0]


def input_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
    """The same of the images; of x only the shape is read."""
    return jax.linear_transpose(lambda x: convolved(x, kernel, strides, padding), x)(slope)[0]


def in_pairs(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """The convolution of pairs of neighbouring columns, which are channels of one, to pairs of results.

    Twice the channels with 4/3 of the products, for a kernel 3 wide: a third of them is with zeros. The
    padding is written with the images, by what computes them.
    """
    height, width, channels, features = kernel.shape
    rows, columns = padding
    x = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)))
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2 * channels)
    pairs = with_shifted(kernel, 2).reshape(height, (width + 1) // 2, 2 * channels, 2 * features)
    y = plain(x, pairs, (1, 1), (rows, (0, 0)))
    return y.reshape(*y.shape[:2], 2 * y.shape[2], features)


def added(x: jax.Array, y: jax.Array) -> jax.Array:
    """x + y as pairs of columns, so that the convolution `in_pairs` that y is of does it on the way."""
    batch, height, width, channels = y.shape
    if channels >= NARROW or width % 2:
        return x + y
    pairs = (batch, height, width // 2, 2 * channels)
    return (x.reshape(pairs) + y.reshape(pairs)).reshape(y.shape)


def of_patches(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """The convolution as one matrix product of copied patches."""
    height, width, channels, features = kernel.shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    taps = [
        padded[:, row : row + rows, column : column + columns]
        for row in range(height)
        for column in range(width)
    ]
    values = height * width * channels
    spare = -values % ALIGNED
    zeros = jnp.zeros((*taps[0].shape[:-1], spare), x.dtype)
    matrix = jnp.pad(kernel.reshape(values, features), ((0, spare), (0, 0)))
    return jnp.concatenate([*taps, zeros], axis=-1) @ matrix


def scaled(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """A 1 x 1 convolution (B, H, W, D) with a matrix (C, D), by elements, which XLA joins to what is around.

    In float32: it is the type of the sums of gradients too.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    products = (
        x[..., channel, None].astype(wide) * row.astype(wide)
        for channel, row in enumerate(jnp.expand_dims(matrix, (1, 2, 3)))
    )
    return functools.reduce(jnp.add, products).astype(x.dtype)

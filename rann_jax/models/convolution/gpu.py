"""Convolutions in forms for NVIDIA's GPUs.

cuDNN computes a convolution as a matrix product whose tiles are 64 channels wide and more: with fewer, the
rest is idle; and it knows nothing quick for images of one channel. Measured on an H100, of 32 and 48 channels
in bfloat16 (docs/performance.md).

In bfloat16 the parts of some gradients are rounded before they are added: relative to float32 the kernel's in
pairs is off by 2.4e-3 in the root mean square, plain 1.7e-3; that of an image of one channel 4.2e-3.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from rann_jax.models.convolution.xla import Form, Padding, Pair, plain, with_shifted
from rann_jax.models.norm import widened

# Channels, in and out, below which two columns at a time are faster: of 48 all three convolutions of a step
# are, of 32 the kernel's gradient; fewer by analogy.
NARROW = 64
# Channels of an image whose patches are cheap to copy,
VERY_FEW = 2
# each patch to a multiple of so many values, which the GPU reads at once.
ALIGNED = 8


def form(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> Form:
    """How a convolution of these shapes is computed."""
    height, width, channels, features = kernel.shape
    if strides != (1, 1):
        return plain
    if channels <= VERY_FEW:
        return scaled if (height, width) == (1, 1) and padding == ((0, 0), (0, 0)) else of_patches
    columns = x.shape[2] + sum(padding[1])
    fit = max(channels, features) < NARROW and width > 1 and width % 2 == 1 and columns % 2 == 0
    return in_pairs if fit else plain


def in_pairs(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution of pairs of neighbouring columns, which are channels of one, to pairs of results.

    Twice the channels with 4/3 of the products, for a kernel 3 wide: a third of them is with zeros. The
    padding is written with the images, by what computes them.
    """
    height, width, channels, features = kernel.shape
    rows, columns = padding
    x = padded(x, ((0, 0), columns))
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2 * channels)
    pairs = with_shifted(kernel, 2).reshape(height, (width + 1) // 2, 2 * channels, 2 * features)
    y = plain(x, pairs, (1, 1), (rows, (0, 0)))
    return y.reshape(*y.shape[:2], 2 * y.shape[2], features)


def are_pairs(shape: tuple[int, ...]) -> bool:
    """Whether images of this shape can be what `in_pairs` gives."""
    return shape[-1] < NARROW and shape[2] % 2 == 0


def added(x: jax.Array, y: jax.Array) -> jax.Array:
    """x + y as pairs of columns, for XLA to fuse the addition into the convolution `in_pairs` that made y."""
    batch, height, width, channels = y.shape
    pairs = (batch, height, width // 2, 2 * channels)
    return (x.reshape(pairs) + y.reshape(pairs)).reshape(y.shape)


def of_patches(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution as one matrix product of copied patches."""
    height, width, channels, features = kernel.shape
    x = padded(x, padding)
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    taps = [
        x[:, row : row + rows, column : column + columns] for row in range(height) for column in range(width)
    ]
    values = height * width * channels
    spare = -values % ALIGNED
    zeros = jnp.zeros((*taps[0].shape[:-1], spare), x.dtype)
    matrix = jnp.pad(kernel.reshape(values, features), ((0, spare), (0, 0)))
    return jnp.concatenate([*taps, zeros], axis=-1) @ matrix


def scaled(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """A 1x1 convolution as products and sums by element, which XLA fuses with the operations around it.

    They are in float32, and so are the sums in their gradients.
    """
    products = (
        widened(x[..., channel, None]) * widened(row)
        for channel, row in enumerate(jnp.expand_dims(kernel[0, 0], (1, 2, 3)))
    )
    return functools.reduce(jnp.add, products).astype(x.dtype)


def padded(x: jax.Array, padding: Padding) -> jax.Array:
    """Images with zeros around them; negative numbers cut off."""
    edges = ((0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), edges)

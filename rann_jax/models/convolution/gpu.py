"""Forms of convolutions that are fast on NVIDIA's GPUs.

cuDNN computes a convolution as a matrix product with tiles at least 64 channels wide; with fewer channels the
rest idles. For images of one channel it has no fast algorithm. Measured on an H100 with 32 and 48 channels in
bfloat16 (docs/performance.md).

In bfloat16 the parts of some gradients are rounded before they are added. Relative to float32, the root mean
square error of the kernel's gradient is 2.4e-3 in pairs and 1.7e-3 plain; for an image of one channel it is
4.2e-3.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from rann_jax.models.convolution.xla import Form, Padding, Pair, plain, with_shifted
from rann_jax.models.norm import widened

# Channels, in and out, below which two columns at a time are faster. With 48, all three convolutions of a
# training step gain; with 32, only the gradient of the kernel; fewer were not measured.
NARROW = 64
# At most this many channels make an image's patches cheap to copy.
VERY_FEW = 2
# Each patch is padded to a multiple of this many values, which the GPU reads at once.
ALIGNED = 8


def form(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> Form:
    """Return the form for a convolution of these shapes."""
    height, width, channels, features = kernel.shape
    if strides != (1, 1):
        return plain
    if channels <= VERY_FEW:
        return scaled if (height, width) == (1, 1) and padding == ((0, 0), (0, 0)) else of_patches
    columns = x.shape[2] + sum(padding[1])
    fit = max(channels, features) < NARROW and width > 1 and width % 2 == 1 and columns % 2 == 0
    return in_pairs if fit else plain


def in_pairs(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Return the convolution, computed with each pair of neighbouring columns as one of twice the channels.

    For a kernel 3 wide this takes 4/3 of the products, a quarter of which are with zeros. The padding is
    fused into the operation that computes the images.
    """
    height, width, channels, features = kernel.shape
    rows, columns = padding
    x = padded(x, ((0, 0), columns))
    x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2 * channels)
    pairs = with_shifted(kernel, 2).reshape(height, (width + 1) // 2, 2 * channels, 2 * features)
    y = plain(x, pairs, (1, 1), (rows, (0, 0)))
    return y.reshape(*y.shape[:2], 2 * y.shape[2], features)


def are_pairs(shape: tuple[int, ...]) -> bool:
    """Return whether images of this shape can be a result of `in_pairs`."""
    return shape[-1] < NARROW and shape[2] % 2 == 0


def added(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x + y, added as pairs of columns, so that XLA fuses it into the convolution `in_pairs` of y."""
    batch, height, width, channels = y.shape
    pairs = (batch, height, width // 2, 2 * channels)
    return (x.reshape(pairs) + y.reshape(pairs)).reshape(y.shape)


def of_patches(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Return the convolution, computed as one matrix product of copied patches."""
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
    """Return a 1x1 convolution: elementwise products and sums, which XLA fuses with operations around it.

    These and the sums in their gradients are computed in float32.
    """
    products = (
        widened(x[..., channel, None]) * widened(row)
        for channel, row in enumerate(jnp.expand_dims(kernel[0, 0], (1, 2, 3)))
    )
    return functools.reduce(jnp.add, products).astype(x.dtype)


def padded(x: jax.Array, padding: Padding) -> jax.Array:
    """Return the images padded with zeros; negative padding crops."""
    edges = ((0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), edges)

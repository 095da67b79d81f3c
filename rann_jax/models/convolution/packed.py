"""Convolutions of images whose channels hold several neighbouring columns, for TPUs.

A TPU lays the channels of an image along the 128 lanes of its registers and its memory, and along the rows of
its matrix units, which have 128 or 256. With 48 channels, most of all these idle. A *packed* image has c
neighbouring columns side by side in its channels: (B, F, T, C) becomes (B, F, T / c, c C). Its convolution
multiplies by zeros more often, but in fewer and fuller products, and memory holds less padding. Changing the
packing copies the whole image, so networks keep images packed from layer to layer (docs/performance.md).
"""

import math

import jax
import jax.numpy as jnp

from rann_jax.models.convolution.xla import Padding, Pair, plain, with_shifted
from rann_jax.models.norm import widened


def columns_for(channels: int, width: int, lanes: int) -> int:
    """Return how many columns to pack: the largest power of two that fits the lanes and divides the width."""
    fits = max(1, lanes // channels)
    return math.gcd(1 << (fits.bit_length() - 1), width)


def packed(x: jax.Array, columns: int) -> jax.Array:
    """Return images (B, F, T, C) as (B, F, T / columns, columns x C)."""
    return x.reshape(*x.shape[:2], x.shape[2] // columns, columns * x.shape[3])


def unpacked(x: jax.Array, columns: int) -> jax.Array:
    """Return images (B, F, T / columns, columns x C) as (B, F, T, C)."""
    return x.reshape(*x.shape[:2], x.shape[2] * columns, x.shape[3] // columns)


def pooled(x: jax.Array, size: Pair, columns: int) -> jax.Array:
    """Return the average of packed images over `size` neighbours, where size[1] divides the packed columns.

    Images (B, F, T / columns, columns x C) become (B, F / size[0], T / columns, columns / size[1] x C).
    Incomplete groups of rows are dropped. The sums are in float32, or in float64 if that is the images' type.
    """
    rows, neighbours = size
    height = x.shape[1] // rows
    grouped = x[:, : height * rows].reshape(x.shape[0], height, rows, *x.shape[2:])
    parts = jnp.split(widened(grouped).sum(axis=2), columns, axis=-1)
    sums = [sum(parts[first : first + neighbours]) for first in range(0, columns, neighbours)]
    return (jnp.concatenate(sums, axis=-1) / (rows * neighbours)).astype(x.dtype)


def convolution(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding, columns: Pair) -> jax.Array:
    """Return the convolution of packed images as packed images.

    Args:
      x: images (B, H, W / c, c C).
      kernel: kernel (h, w, C, D), as for images that are not packed; so are strides and padding. It is packed
        in its own type, so that the parts of its gradient are added in float32 even for images in bfloat16.
      strides: steps in rows and columns.
      padding: zeros before and after the rows, and the columns.
      columns: columns packed in the images, c, and in the result.

    Raises:
      ValueError: the packed columns do not divide the result's width or, for the images, the step from one
        packed result to the next.
    """
    before, after = columns
    (left, right), stride = padding[1], strides[1]
    width = (x.shape[2] * before + left + right - kernel.shape[1]) // stride + 1
    if width % after or stride * after % before:
        raise ValueError(f"columns packed as {columns} do not fit stride {stride} and a result {width} wide")
    wide, lead = packed_kernel(kernel, stride, left, columns)
    wide = wide.astype(x.dtype)
    step = stride * after // before
    rest = (width // after - 1) * step + wide.shape[1] - lead - x.shape[2]
    return plain(x, wide, (strides[0], step), (padding[0], (lead, rest)))


def packed_kernel(kernel: jax.Array, stride: int, left: int, columns: Pair) -> tuple[jax.Array, int]:
    """Return the kernel for packed images, and how many packs of zeros precede the columns.

    The kernel (h, w, C, D) becomes (h, w', c C, c' D), with c columns packed in the images, c' in the result.
    """
    before, after = columns
    height, _, channels, features = kernel.shape
    kernel = with_shifted(kernel, after, stride)
    lead = math.ceil(left / before)
    early = lead * before - left
    late = -(early + kernel.shape[1]) % before
    kernel = jnp.pad(kernel, ((0, 0), (early, late), (0, 0), (0, 0)))
    return kernel.reshape(height, -1, before * channels, after * features), lead

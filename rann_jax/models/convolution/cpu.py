"""Forms of convolutions that are fast on CPUs.

A CPU computes a convolution as a matrix product of copied patches. With few channels the product is so narrow
that copying dominates. For a strided convolution, JAX's input gradient multiplies mostly zeros.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rann_jax.models.convolution import xla
from rann_jax.models.convolution.xla import Form, Padding, Pair, plain, with_shifted

# All three limits are measured. Products with fewer results are faster for two or more columns at a time.
WIDE = 32
# Input gradients for at most this many channels are faster in forms of their own.
FEW = 16
# For at most this many channels (the image itself) yet another form is faster.
VERY_FEW = 2


def form(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> Form:
    """Return the form for a convolution of these shapes: in columns if strides are 1 and results are few."""
    columns = columns_at_a_time(result_width(x, kernel, padding), kernel.shape[-1])
    return in_columns if strides == (1, 1) and columns > 1 else plain


def in_columns(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Return the convolution with strides 1, computed for enough columns at once to make `WIDE` results."""
    width, features = result_width(x, kernel, padding), kernel.shape[-1]
    columns = columns_at_a_time(width, features)
    y = plain(x, with_shifted(kernel, columns), (1, columns), padding)
    return y.reshape(*y.shape[:2], width, features)


def result_width(x: jax.Array, kernel: jax.Array, padding: Padding) -> int:
    """Return the number of columns that a convolution with strides 1 gives."""
    return x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1


def columns_at_a_time(width: int, features: int) -> int:
    """Return the smallest power of two that makes products `WIDE` wide, as far as it divides `width`."""
    columns = 1
    while columns * features < WIDE and width % (2 * columns) == 0:
        columns *= 2
    return columns


def input_gradient_form(x: jax.Array) -> Callable[..., jax.Array]:
    """Return the function that computes the gradient with respect to images of this shape."""
    return input_gradient if x.shape[-1] <= FEW else xla.input_gradient


def input_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
    """Return the gradient (B, H, W, C) of images with few channels, for slopes (B, H', W', D).

    Only the shape of the images x is read.
    """
    size = (x.shape[1], x.shape[2])
    if strides != (1, 1):
        return phase_by_phase(slope, kernel, size, strides, padding)
    if x.shape[-1] <= VERY_FEW:
        return tap_by_tap(slope, kernel, size, padding)
    reversed_kernel = kernel[::-1, ::-1].swapaxes(2, 3)
    rows, columns = (
        (taps - 1 - low, length - slopes + low)
        for taps, (low, _), length, slopes in zip(kernel.shape, padding, size, slope.shape[1:3], strict=False)
    )
    operands = slope, reversed_kernel, (1, 1), (rows, columns)
    return form(*operands)(*operands)


def tap_by_tap(slope: jax.Array, kernel: jax.Array, size: Pair, padding: Padding) -> jax.Array:
    """Return the gradient with strides 1: one product for all kernel taps, its results shifted and added."""
    (top, _), (left, _) = padding
    below, right = size[0] - slope.shape[1] + top, size[1] - slope.shape[2] + left
    taps = jnp.einsum("bhwd,ijcd->bhwijc", slope, kernel)
    moved = (
        lax.pad(
            taps[:, :, :, row, column],
            jnp.zeros((), taps.dtype),
            ((0, 0, 0), (row - top, below - row, 0), (column - left, right - column, 0), (0, 0, 0)),
        )
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    )
    return functools.reduce(jnp.add, moved)


def phase_by_phase(
    slope: jax.Array, kernel: jax.Array, size: Pair, strides: Pair, padding: Padding
) -> jax.Array:
    """Return the gradient of a strided convolution: one convolution without strides for all phases at once.

    With stride s, write a position as s q + a, where a is its phase. It contributes to the results at q + d
    through the kernel's taps a + low - s d, where `low` is the padding before. Each phase thus has its own
    subset of the taps.
    """
    # Along each axis: the reach of d, and the padding of the kernel that puts tap s (reach - d) + a in place.
    reaches, kernel_padding, slope_padding = [], [], []
    for taps, stride, (low, _), length, slopes in zip(
        kernel.shape, strides, padding, size, slope.shape[1:3], strict=False
    ):
        after = (low + stride - 1) // stride
        before = (taps - 1 - low) // stride
        reach = before + after + 1
        lead = stride * after - low
        kernel_padding.append((lead, stride * reach - taps - lead, 0))
        slope_padding.append((before, -(-length // stride) - slopes + after))
        reaches.append(reach)
    (down, across), (rows, columns) = strides, reaches
    channels, features = kernel.shape[2:]
    padded = lax.pad(kernel, jnp.zeros((), kernel.dtype), (*kernel_padding, (0, 0, 0), (0, 0, 0)))
    phases = padded.reshape(rows, down, columns, across, channels, features)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(rows, columns, features, down * across * channels)
    y = plain(slope, phases, (1, 1), (slope_padding[0], slope_padding[1]))
    batch, height, width, _ = y.shape
    y = y.reshape(batch, height, width, down, across, channels).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, height * down, width * across, channels)[:, : size[0], : size[1]]

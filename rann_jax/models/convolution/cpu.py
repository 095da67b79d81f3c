"""Convolutions in forms for CPUs.

A CPU computes a convolution as a matrix product of copied patches. With few channels the product is so narrow
that the copying takes the time; and where the forward pass strides, JAX's input gradient multiplies mostly
zeros.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from rann_jax.models.convolution import xla
from rann_jax.models.convolution.xla import Form, Padding, Pair, plain, with_shifted

# Measured: products of fewer results than this are faster for two or more columns at a time,
WIDE = 32
# input gradients for so few channels are faster in forms of their own,
FEW = 16
# and for so few, the image itself, in another.
VERY_FEW = 2


def form(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> Form:
    """How a convolution of these shapes is computed: with strides 1 and few results in columns."""
    columns = columns_at_a_time(result_width(x, kernel, padding), kernel.shape[-1])
    return in_columns if strides == (1, 1) and columns > 1 else plain


def in_columns(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution with strides 1 of as many columns at once as make `WIDE` results."""
    width, features = result_width(x, kernel, padding), kernel.shape[-1]
    columns = columns_at_a_time(width, features)
    y = plain(x, with_shifted(kernel, columns), (1, columns), padding)
    return y.reshape(*y.shape[:2], width, features)


def result_width(x: jax.Array, kernel: jax.Array, padding: Padding) -> int:
    """Columns that a convolution with strides 1 gives."""
    return x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1


def columns_at_a_time(width: int, features: int) -> int:
    """The power of two that divides the width of a result and gives products of at least `WIDE` columns."""
    columns = 1
    while columns * features < WIDE and width % (2 * columns) == 0:
        columns *= 2
    return columns


def input_gradient_form(x: jax.Array) -> Callable[..., jax.Array]:
    """Which function computes the gradient with respect to images of this shape."""
    return input_gradient if x.shape[-1] <= FEW else xla.input_gradient


def input_gradient(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, strides: Pair, padding: Padding
) -> jax.Array:
    """The gradient (B, H, W, C) of images of few channels, of which only the shape is read, for slopes
    (B, H', W', D)."""
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
    """The gradient with strides 1: one matrix product for all taps of the kernel, whose results are moved."""
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
    """The gradient of a strided convolution as one without strides, whose results are all phases' at once.

    With stride s and s q + a a position, the slopes that it has a part in are at q + d, through the kernel's
    taps a + low - s d, where `low` is the padding before: so many taps of the kernel for each phase a.
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

"""Two-dimensional convolutions of few channels that are fast on CPUs too.

A CPU computes a convolution as a matrix product of copied patches. With few channels the product is so narrow
that the copying takes the time; and where the forward pass strides, JAX's input gradient multiplies mostly
zeros. The same sums in other forms are up to twice as fast (docs/performance.md has what was measured). On
accelerators everything is `lax.conv_general_dilated` and JAX's gradient of it.
"""

import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# Images of fewer positions are left to XLA: they take little time, and a second form takes some to compile.
LARGE = 1 << 14
# Measured: products of fewer results than this are faster for two or more columns at a time,
WIDE = 32
# input gradients for so few channels are faster in forms of their own,
FEW = 16
# and for so few, the image itself, in another.
VERY_FEW = 2

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

# What `nn.Conv` passes besides, where it is a convolution without extras.
PLAIN = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1, "precision": None}


def convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[Sequence[int]], **options: Any
) -> jax.Array:
    """A convolution (B, H', W', D) of images x (B, H, W, C) with a kernel (h, w, C, D).

    It stands in for `lax.conv_general_dilated` in `nn.Conv`. Reverse-mode derivatives only.

    Raises:
      ValueError: options ask for dilation, groups or a precision.
    """
    for name, value in PLAIN.items():
        if options.get(name, value) != value:
            raise ValueError(f"convolution has no {name}={options[name]}")
    (top, bottom), (left, right) = padding
    form = convolved if x.shape[1] * x.shape[2] >= LARGE else plain
    return form(x, kernel, (strides[0], strides[1]), ((top, bottom), (left, right)))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolved(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution, in the form that suits the device."""
    width = x.shape[2] + sum(padding[1]) - kernel.shape[1] + 1
    columns = columns_at_a_time(width, kernel.shape[-1]) if strides == (1, 1) else 1
    if columns == 1:
        return plain(x, kernel, strides, padding)
    by_columns = partial(in_columns, columns=columns, padding=padding)
    default = partial(plain, strides=strides, padding=padding)
    return lax.platform_dependent(x, kernel, cpu=by_columns, default=default)


def _forward(x, kernel, strides, padding):
    return convolved(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, kept, slope):
    x, kernel = kept
    (d_kernel,) = jax.linear_transpose(lambda kernel: plain(x, kernel, strides, padding), kernel)(slope)

    def default(slope: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: plain(x, kernel, strides, padding), x)(slope)[0]

    here = partial(input_gradient, size=x.shape[1:3], strides=strides, padding=padding)
    if x.shape[-1] <= FEW:
        d_x = lax.platform_dependent(slope, kernel, cpu=here, default=default)
    else:
        d_x = default(slope, kernel)
    return d_x, d_kernel


convolved.defvjp(_forward, _backward)


def plain(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """The convolution as XLA has it."""
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def columns_at_a_time(width: int, features: int) -> int:
    """The power of two that divides the width of a result and gives products of at least `WIDE` columns."""
    columns = 1
    while columns * features < WIDE and width % (2 * columns) == 0:
        columns *= 2
    return columns


def in_columns(x: jax.Array, kernel: jax.Array, columns: int, padding: Padding) -> jax.Array:
    """The convolution with strides 1 as one whose results are several neighbours' at once.

    Its kernel is as many shifted copies of the given one; a part of the products is with zeros.
    """
    height, width, channels, features = kernel.shape
    shifted = [
        jnp.pad(kernel, ((0, 0), (column, columns - 1 - column), (0, 0), (0, 0))) for column in range(columns)
    ]
    wide = jnp.stack(shifted, axis=3).reshape(height, width + columns - 1, channels, columns * features)
    y = plain(x, wide, (1, columns), padding)
    return y.reshape(*y.shape[:2], y.shape[2] * columns, features)


def input_gradient(
    slope: jax.Array, kernel: jax.Array, size: Pair, strides: Pair, padding: Padding
) -> jax.Array:
    """The gradient (B, H, W, C), of few channels and with size (H, W), of what gave slopes (B, H', W', D)."""
    if strides != (1, 1):
        return phase_by_phase(slope, kernel, size, strides, padding)
    if kernel.shape[2] <= VERY_FEW:
        return tap_by_tap(slope, kernel, size, padding)
    reversed_padding = tuple(
        (taps - 1 - low, length - slopes + low)
        for taps, (low, _), length, slopes in zip(kernel.shape, padding, size, slope.shape[1:3], strict=False)
    )
    return convolved(slope, kernel[::-1, ::-1].swapaxes(2, 3), (1, 1), reversed_padding)


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

"""Two-dimensional convolutions with few channels, made fast on CPUs, on NVIDIA's GPUs and on TPUs.

All compute convolutions as matrix products of patches. With few channels the products are so narrow that on
a CPU copying the patches dominates (`cpu`), and on a GPU most of the tensor cores idle (`gpu`). Computing the
same sums in other forms is up to twice as fast (measurements: docs/performance.md). The forms for CPUs
and GPUs are chosen when a program is compiled. That for TPUs (`packed`) concerns all layers between
convolutions, so it is part of the networks (their attribute `lanes`, `rann_jax.devices.compiler.suited`).
Other accelerators use `lax.conv_general_dilated` and JAX's gradient of it throughout.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from rann_jax.models.convolution import cpu, gpu, packed
from rann_jax.models.convolution.xla import Padding, Pair, input_gradient, kernel_gradient, plain

# Images with fewer positions are left to XLA: they take little time, and another form adds compile time.
LARGE = 1 << 14


class Convolution(nn.Module):
    """A convolution of images without a bias, in the form that suits the device.

    It supports reverse-mode derivatives only. The parameter `kernel` (h, w, C, channels) is float32, and the
    same for all `columns`.

    Attributes:
      channels: number of channels of the result.
      size: height h and width w of the kernel.
      strides: steps in rows and columns.
      padding: zeros before and after the rows, and the columns.
      columns: columns packed in the images and in the result (`packed`).
      kernel_init: initialiser of the kernel. The deck does not state one; He's is ours.
      dtype: type of the computation and the result.
    """

    channels: int
    size: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    columns: Pair = (1, 1)
    kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (B, H, W, C) to (B, H', W', channels); both packed as `columns` says."""
        shape = (*self.size, x.shape[-1] // self.columns[0], self.channels)
        # In programs that enable float64, it would be the default type.
        kernel, x = self.param("kernel", self.kernel_init, shape, jnp.float32), x.astype(self.dtype)
        if self.columns != (1, 1):
            return packed.convolution(x, kernel, self.strides, self.padding, self.columns)
        form = convolved if x.shape[1] * x.shape[2] >= LARGE else plain
        return form(x, kernel.astype(self.dtype), self.strides, self.padding)


def added(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the sum of images x and a convolution's result y, in the shape in which a GPU computes y."""
    if x.shape[1] * x.shape[2] < LARGE or not gpu.are_pairs(y.shape):
        return x + y
    return lax.platform_dependent(x, y, cuda=gpu.added, default=jnp.add)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolved(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Return the convolution, computed in the form that suits the device."""
    forms = {
        "cpu": cpu.form(x, kernel, strides, padding),
        "cuda": gpu.form(x, kernel, strides, padding),
    }
    return _by_platform(plain, forms, (x, kernel), (strides, padding))


def _forward(
    x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolved(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: Pair, padding: Padding, kept: tuple[jax.Array, jax.Array], slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    of_input, of_kernel = {"cpu": cpu.input_gradient_form(x)}, {}
    on_gpu = gpu.form(x, kernel, strides, padding)
    if on_gpu is not plain:
        of_input["cuda"] = partial(input_gradient, form=on_gpu)
        of_kernel["cuda"] = partial(kernel_gradient, form=on_gpu)
    operands, geometry = (x, kernel, slope), (strides, padding)
    return (
        _by_platform(input_gradient, of_input, operands, geometry),
        _by_platform(kernel_gradient, of_kernel, operands, geometry),
    )


convolved.defvjp(_forward, _backward)


def _by_platform(
    default: Callable, others: Mapping[str, Callable], operands: Sequence[jax.Array], geometry: tuple
) -> jax.Array:
    """Apply the device's own function; if no platform differs from `default`, apply that alone."""
    functions = {platform: function for platform, function in others.items() if function is not default}
    if not functions:
        return default(*operands, *geometry)
    functions["default"] = default
    return lax.platform_dependent(
        *operands, **{name: _closed(function, geometry) for name, function in functions.items()}
    )


def _closed(function: Callable, geometry: tuple) -> Callable:
    return lambda *operands: function(*operands, *geometry)

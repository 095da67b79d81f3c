"""Count parameters and multiply-adds of a network from its trace, without allocating anything."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from flax import linen as nn

from rann_jax.features.front_ends.panns import PannsBands
from rann_jax.models.convolution import Convolution
from rann_jax.models.norm import BatchNorm
from rann_jax.models.registry import create, crop_seconds, published_front_end


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Cost of one forward pass of one clip.

    Attributes:
      params: number of trainable parameters.
      macs: multiply-adds of convolutions and fully connected layers (the unit of the deck's RANN rows). The
        front end is not counted; kernel taps that fall on padding are.
      flops: 2 per multiply-add, in the same layers.
      seconds: length of the input in seconds.
      input_shape: shape (F, T) of the feature image.
      stft_macs: multiply-adds of the front end's STFT, written as a convolution; PANNs count them.
      element_flops: FLOPs that PANNs count for other layers: 2 per output value of a BatchNorm or a ReLU
        module, 4 per output value of a 2x2 pooling module. Only their residual blocks have the last two as
        modules. The pooling is inferred (ours): without it ResNet38 would have 48.961e9, and the deck has
        48.962e9.
      activation_bytes: bytes of the float32 outputs of all convolutions, BatchNorms and fully connected
        layers, which training keeps for the backward pass.
    """

    params: int
    macs: int
    flops: int
    seconds: float
    input_shape: tuple[int, int]
    stft_macs: int
    element_flops: int
    activation_bytes: int

    @property
    def published_flops(self) -> int:
        """FLOPs as in the deck's PANNs rows: 2 per multiply-add, including the STFT, and `element_flops`."""
        return 2 * (self.macs + self.stft_macs) + self.element_flops


def complexity(
    name: str,
    *,
    num_classes: int = 527,
    n_bins: int = 128,
    frames_per_second: int = 128,
    **options: Any,
) -> Complexity:
    """Return the cost of the named network for its usual input: a RANN's crop, or 10 s at 32 kHz for a PANN.

    Args:
      name: as in `create`.
      num_classes: number of logits; the deck's table uses AudioSet's 527.
      n_bins: number of frequency bins F of a RANN.
      frames_per_second: frame rate of a RANN; T is this times the crop length.
      **options: attributes of the module.

    Raises:
      ValueError: no such network or option, the shape does not fit the network, or no usual input is known.

    >>> complexity("rann-8x4-6").macs
    47136582912
    """
    model = create(name, num_classes=num_classes, **options)
    seconds = crop_seconds(name)
    stft_macs = 0
    x: Any
    if front_end := published_front_end(name):
        seconds = front_end.seconds
        shape = (front_end.n_bins, front_end.n_frames)
        x = jax.eval_shape(front_end, jax.ShapeDtypeStruct((1, front_end.n_samples), jnp.float32))
        if isinstance(front_end, PannsBands):
            # A cosine and a sine of the window's length for each of its n / 2 + 1 frequencies.
            stft_macs = front_end.n_frames * front_end.n_fft * 2 * (front_end.n_fft // 2 + 1)
    elif seconds is not None:
        shape = (n_bins, round(frames_per_second * seconds))
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    else:
        raise ValueError(f"no usual input of {name!r} is known: its name gives no crop length")
    variables, layers = _traced(model, x)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    macs = count_macs(jax.make_jaxpr(model.apply)(variables, x).jaxpr)
    element_flops, activations = (sum(values) for values in zip(*layers, strict=True))
    return Complexity(
        params, macs, 2 * macs, seconds, shape, stft_macs, element_flops, activation_bytes=4 * activations
    )


def _traced(model: nn.Module, x: Any) -> tuple[Any, list[tuple[int, int]]]:
    """Return the shapes of the variables, and for every layer its element FLOPs and its output size."""
    layers: list[tuple[int, int]] = []

    def seen(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv | Convolution | BatchNorm | nn.Dense):
            layers.append((_element_flops(context.module, args[0].size, out.size), out.size))
        return out

    with nn.intercept_methods(seen):
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
    return variables, layers


def _element_flops(layer: nn.Module, size_in: int, size_out: int) -> int:
    """Return what PANNs' hooks count around a layer besides its multiply-adds; functions have no hooks."""
    block, name = ("", *layer.path)[-2:]
    if isinstance(layer, BatchNorm):
        followed_by_relu = block.startswith("layer") and name in ("bn1", "bn2")
        return size_out * (4 if followed_by_relu else 2)
    return 4 * size_in if name == "downsample_conv" else 0


def count_macs(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Return the multiply-adds of every convolution and matrix product in a jaxpr, nested ones included.

    Of the alternatives of `lax.platform_dependent` only the default is counted.
    """
    return sum(_equation_macs(equation) for equation in _equations(jaxpr))


def _equations(jaxpr: jax.extend.core.Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        nested = list(jax.extend.core.jaxprs_in_params(equation.params))
        for inner in nested[-1:] if equation.primitive.name == "cond" else nested:
            yield from _equations(inner)


def _equation_macs(equation: Any) -> int:
    out = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return out * math.prod(kernel) // out_channels
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0

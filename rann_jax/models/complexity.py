"""Parameters and multiply-adds of a network, counted from its trace: nothing is allocated."""

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.extend.core
import jax.numpy as jnp

from rann_jax.models.registry import create, crop_seconds


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What one forward pass of one clip costs.

    Attributes:
      params: trainable parameters.
      macs: multiply-adds of convolutions and fully connected layers (the unit of the deck's RANN rows);
        the front end is not counted, and taps that fall on padding are.
      flops: 2 per multiply-add, in the same layers.
      seconds: length of the input in seconds.
      input_shape: the feature image (F, T).
    """

    params: int
    macs: int
    flops: int
    seconds: float
    input_shape: tuple[int, int]


def complexity(
    name: str,
    *,
    num_classes: int = 527,
    n_bins: int = 128,
    frames_per_second: int = 128,
    **options,
) -> Complexity:
    """Cost of the named network for its own crop length.

    Args:
      name: as in `create`.
      num_classes: number of logits; the deck's table has AudioSet's 527.
      n_bins: frequency bins F.
      frames_per_second: T is this times the crop length.
      **options: attributes of the module.

    Raises:
      ValueError: no such network or option, or the shape does not fit it.

    >>> complexity("rann-8x4-6").macs
    47136582912
    """
    model = create(name, num_classes=num_classes, **options)
    seconds = crop_seconds(name)
    if seconds is None:
        raise ValueError(f"the name {name!r} prescribes no crop length")
    shape = (n_bins, round(frames_per_second * seconds))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    macs = count_macs(jax.make_jaxpr(model.apply)(variables, x).jaxpr)
    return Complexity(params, macs, 2 * macs, seconds, shape)


def count_macs(jaxpr) -> int:
    """Multiply-adds of every convolution and matrix product in a jaxpr, nested ones included."""
    return sum(_equation_macs(equation) for equation in _equations(jaxpr))


def _equations(jaxpr) -> Iterator:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _equation_macs(equation) -> int:
    out = math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        out_channels = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        return out * math.prod(kernel) // out_channels
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return out * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return 0

"""Batch normalisation as every network here has it: PyTorch's momentum and epsilon, statistics in float32."""

import jax
from flax import linen as nn


def batch_norm(x: jax.Array, *, train: bool, **options) -> jax.Array:
    """A BatchNorm of x, by the batch (`train`) or by the running statistics; options are flax's."""
    # Which statistics is said in the call, not in the layer, so that a frozen layer can be called otherwise.
    # flax subtracts float32 statistics from bfloat16 values, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        # flax's momentum 0.9 is torch's 0.1.
        return nn.BatchNorm(momentum=0.9, epsilon=1e-5, **options)(x, use_running_average=not train)

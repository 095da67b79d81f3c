"""A network that is trained in no time, and its input."""

import jax
import numpy as np
from flax import linen as nn

from rann_jax.models.norm import BatchNorm

IMAGES = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


class Small(nn.Module):
    """A network with the parts that freezing handles: BatchNorm, dropout, an embedding and a last layer."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return nn.Dense(3, name="fc2")(self.embed(x, train=train))

    @nn.compact
    def embed(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for layer in range(3):
            x = BatchNorm(name=f"norm{layer}")(nn.Dense(8, name=f"dense{layer}")(x), train=train)
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return x

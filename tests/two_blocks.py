"""tests/tiny.py with a network of two residual blocks, for tests that start many programs.

    python -m rann_jax.main --config tests/two_blocks.py --workdir DIR

Loading this file adds the network to the registry. Every program would compile the twenty blocks of a RANN.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from rann_jax.models import ResidualBlock
from rann_jax.models.norm import BatchNorm
from rann_jax.models.registry import FAMILIES, Family
from rann_jax.models.remat import rematerialised
from tests import tiny


class TwoBlocks(nn.Module):
    num_classes: int
    dtype: jax.typing.DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = BatchNorm(axis=1, name="input_norm")(x, train=train)[..., None]
        block = rematerialised(ResidualBlock) if self.remat else ResidualBlock
        x = block(8, strides=(2, 4), name="block0")(x, train)
        x = block(8, name="block1")(x, train)
        return nn.Dense(self.num_classes, name="fc")(x.mean(axis=(1, 2)))


FAMILIES["two_blocks"] = Family(lambda name, **options: TwoBlocks(**options), head="fc")


def get_config(arg: str | None = None) -> ConfigDict:
    config = tiny.get_config(arg)
    config.model = {"name": "two_blocks", "remat": False}
    config.log_every = 1
    return config

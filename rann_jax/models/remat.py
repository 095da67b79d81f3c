"""Memory for time: blocks whose inside is computed again in the backward pass."""

from flax import linen as nn


def rematerialised(block: type[nn.Module]) -> type[nn.Module]:
    """The same block, called as block(x, train), of which only the input waits for the backward pass."""
    return nn.remat(block, static_argnums=(2,))  # of (self, x, train)

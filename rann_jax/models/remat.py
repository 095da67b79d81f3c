"""Blocks that recompute their activations in the backward pass, to save memory at the cost of time."""

from flax import linen as nn


def rematerialised(block: type[nn.Module]) -> type[nn.Module]:
    """Return the same block, called as block(x, train), that stores only its input for the backward pass."""
    return nn.remat(block, static_argnums=(2,))  # train, of (self, x, train)

"""Mixup: every example is mixed with another of its batch, and so are their labels."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp


def partners(values: jax.Array) -> jax.Array:
    """What each example of a batch is mixed with: the one after it, for the last the first.

    Batches come in random order, so this is a random pairing, in which no example meets itself unless it is
    the whole batch. Of several devices each sends one example to the device before it; a random permutation
    would bring the whole batch to every device.

    Args:
      values: (B, ...).

    Returns:
      As `values`.
    """
    return jnp.roll(values, -1, axis=0)


def floating(values: jax.Array) -> jax.Array:
    """`values`, as float32 if they are integers or booleans, which cannot be mixed."""
    values = jnp.asarray(values)
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)


def mixup(key: jax.Array, x: jax.Array, labels: jax.Array, *, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Mix each example with a partner: r x1 + (1 - r) x2, r ~ Beta(alpha, alpha) for each example.

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, which pairs by a random
    permutation; here the batch is in random order, and `partners` pairs it.

    Args:
      key: random key.
      x: (B, ...) waveforms or features.
      labels: (B, C), one-hot or multi-hot, of any type; they mix in the same proportion.
      alpha: of the Beta distribution; 1 is uniform, less mixes more weakly.

    Returns:
      x and labels, mixed.
    """
    x, labels = floating(x), floating(labels)
    ratio = jax.random.beta(key, alpha, alpha, (len(x),))

    def mix(values: jax.Array) -> jax.Array:
        r = ratio.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
        return r * values + (1 - r) * partners(values)

    return mix(x), mix(labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """`mixup` of the waveforms.

    Attributes:
      alpha: of the Beta distribution.
    """

    on: ClassVar[str] = "audio"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"mixup: alpha must be positive and finite, not {self.alpha}")

    def __call__(self, key: jax.Array, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Waveforms (B, N) or feature images (B, F, T), and labels (B, C), mixed."""
        return mixup(key, x, jnp.asarray(labels), alpha=self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMixup(Mixup):
    """`mixup` of the feature images, where the network sees nothing else."""

    on: ClassVar[str] = "features"

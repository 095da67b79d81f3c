"""Mixup: every example is mixed with another of its batch, and their labels likewise."""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import class_labels, floating
from rann_jax.features.clipwise import has_explicit_axes


def partners(values: jax.Array) -> jax.Array:
    """Return each example's partner: the next example of the batch; for the last example, the first.

    Batches are in random order, so this is a random pairing in which no example meets itself, except in a
    batch of one. With several devices, each device sends one example to the device before it; a random
    permutation would copy the whole batch to every device.

    Args:
      values: (B, ...).

    Returns:
      The partners, with the shape of `values`.
    """
    rolled = functools.partial(jnp.roll, shift=-1, axis=0)
    if has_explicit_axes(values):
        rolled = jax.sharding.auto_axes(rolled, out_sharding=jax.typeof(values).sharding)
    return rolled(values)


def mixup(key: jax.Array, x: ArrayLike, labels: ArrayLike, *, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Mix each example with a partner: r x1 + (1 - r) x2, r ~ Beta(alpha, alpha) for each example.

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018. The paper pairs examples by
    a random permutation; here the batch is already in random order, and `partners` pairs it.

    Args:
      key: random key.
      x: (B, ...) waveforms or features.
      labels: (B, C), one-hot or multi-hot, of any type; mixed in the same proportion.
      alpha: parameter of the Beta distribution; 1 is uniform, smaller values mix less.

    Returns:
      x and labels, mixed.

    Raises:
      ValueError: labels are not (B, C), such as class indices (B,).
    """
    x = floating(x)
    labels = floating(class_labels(labels, len(x)))
    # Beta(1, 1) is uniform. JAX draws other Beta variables by rejection, in loops whose length depends on the
    # draws: a GPU makes its host wait for each, and several devices have to agree on their ends.
    if alpha == 1:
        ratio = jax.random.uniform(key, (len(x),), jnp.float32)
    else:
        ratio = jax.random.beta(key, alpha, alpha, (len(x),), jnp.float32)

    def mix(values: jax.Array) -> jax.Array:
        r = ratio.reshape(-1, *(1,) * (values.ndim - 1)).astype(values.dtype)
        return r * values + (1 - r) * partners(values)

    return mix(x), mix(labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
    """`mixup` applied to the waveforms.

    Attributes:
      alpha: parameter of the Beta distribution.
    """

    on: ClassVar[str] = "audio"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"mixup: alpha must be positive and finite, not {self.alpha}")

    def __call__(self, key: jax.Array, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) or feature images (B, F, T), and labels (B, C), mixed."""
        return mixup(key, x, jnp.asarray(labels), alpha=self.alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureMixup(Mixup):
    """`mixup` applied to the feature images, for networks that take nothing else."""

    on: ClassVar[str] = "features"

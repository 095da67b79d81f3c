"""Gradients of a batch in parts: computed one after another, or with BatchNorm statistics per part.

Both give the mean of the parts' gradients. It equals the gradient of the whole batch except for BatchNorm,
which normalises each part by its own statistics. The running statistics are updated by the mean over the
parts: the running mean is that of the whole batch, but the running variance lacks the variance between parts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# (params, batch_stats, features, labels, key) -> (loss, batch_stats)
Loss = Callable[..., tuple[jax.Array, Any]]
# The same arguments -> ((loss, batch_stats), gradients of params)
Gradient = Callable[..., tuple[tuple[jax.Array, Any], Any]]


def grouped(loss: Loss, groups: int) -> Loss:
    """Return the mean loss over equal, consecutive groups of a batch, each normalised by itself.

    Hoffer et al., "Train longer, generalize better", 2017, call this ghost batch normalisation. With as many
    groups as devices, each device has its own statistics, and none are exchanged over the network.
    """
    if groups == 1:
        return loss

    def mean_of_groups(
        params: Any, batch_stats: Any, features: Any, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        parts = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), (features, labels))
        apply = jax.vmap(loss, in_axes=(None, None, 0, 0, 0))
        results = apply(params, batch_stats, *parts, jax.random.split(key, groups))
        return jax.tree.map(lambda x: x.mean(axis=0), results)

    return mean_of_groups


def accumulated(loss: Loss, count: int) -> Gradient:
    """Return the mean gradient over `count` parts of a batch, computed one after another to save memory.

    Part k has rows k, k + count, ... of the batch, so that every device has a share of every part. XLA's
    partitioner sums the gradients over the devices in the loop, for each part; BatchNorm's statistics, which
    devices exchange in the middle of a part, are in the way of a sum that is left to the end.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if count == 1:
        return gradient

    def mean_of_parts(
        params: Any, batch_stats: Any, features: Any, labels: jax.Array, key: jax.Array
    ) -> tuple[tuple[jax.Array, Any], Any]:
        parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), (features, labels))
        keys = jax.random.split(key, count)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            (part_features, part_labels), part_key = part
            result = gradient(params, batch_stats, part_features, part_labels, part_key)
            return jax.tree.map(jnp.add, total, result), None

        shapes = jax.eval_shape(gradient, params, batch_stats, *jax.tree.map(lambda x: x[0], parts), keys[0])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (parts, keys))
        return jax.tree.map(lambda x: x / count, total)

    return mean_of_parts

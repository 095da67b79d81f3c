"""The gradient of a batch in parts: one after another, or with BatchNorm statistics of each part alone.

Both give the mean of the parts' gradients, which is the batch's own but for BatchNorm: a part is
normalised by its own statistics. The running statistics take the mean of what the parts would make of them:
the running mean is that of the whole batch, the running variance lacks the variance between parts.
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
    """The mean loss over equal, consecutive groups of a batch, each normalised by itself.

    Hoffer et al., "Train longer, generalize better", 2017, call this ghost batch normalisation. Where there
    are as many groups as devices, each has its own statistics, and those of no other cross the network.
    """
    if groups == 1:
        return loss

    def mean_of_groups(params, batch_stats, features, labels, key):
        parts = jax.tree.map(lambda x: x.reshape(groups, -1, *x.shape[1:]), (features, labels))
        apply = jax.vmap(loss, in_axes=(None, None, 0, 0, 0))
        results = apply(params, batch_stats, *parts, jax.random.split(key, groups))
        return jax.tree.map(lambda x: x.mean(axis=0), results)

    return mean_of_groups


def accumulated(loss: Loss, count: int) -> Gradient:
    """The mean gradient over `count` parts of a batch, computed one after another in the memory of one.

    Part k has rows k, k + count, ... of the batch: so each device has a share of every part.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if count == 1:
        return gradient

    def mean_of_parts(params, batch_stats, features, labels, key):
        parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), (features, labels))
        keys = jax.random.split(key, count)

        def add(total, part):
            (part_features, part_labels), part_key = part
            result = gradient(params, batch_stats, part_features, part_labels, part_key)
            return jax.tree.map(jnp.add, total, result), None

        shapes = jax.eval_shape(gradient, params, batch_stats, *jax.tree.map(lambda x: x[0], parts), keys[0])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = jax.lax.scan(add, zeros, (parts, keys))
        return jax.tree.map(lambda x: x / count, total)

    return mean_of_parts

"""Losses on logits and mixed labels. Each returns one value per example, so that padding can be masked."""

import jax
import jax.numpy as jnp
import optax


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean over the classes of the binary cross-entropy of sigmoid(logits), for audio tagging.

    Args:
      logits: (..., C).
      labels: (..., C) in [0, 1]; mixed labels are allowed.

    Returns:
      (...,) in nats; the mean over examples equals torch's BCEWithLogitsLoss.
    """
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)


def categorical_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of softmax(logits), for classification.

    Args:
      logits: (..., C).
      labels: (..., C), one-hot or a mixture that sums to 1.

    Returns:
      (...,) in nats; the mean over examples equals torch's CrossEntropyLoss.
    """
    return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)

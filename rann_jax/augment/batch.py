"""What the augmentations take: a batch of floating-point waveforms or images, and labels with a row for each.

Shapes are checked because arrays of other shapes would be broadcast, silently, to wrong results.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.features import signal


def array(values: ArrayLike) -> jax.Array:
    """Return `values` as an array of JAX; NumPy's may be in any byte order."""
    return jnp.asarray(signal.as_array(values))


def floating(values: ArrayLike) -> jax.Array:
    """Return `values`; integers and booleans, which cannot be mixed, as float32."""
    values = array(values)
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.float32)


def waveforms(audio: ArrayLike) -> jax.Array:
    """Return waveforms as an array of JAX; ValueError unless they are (B, N)."""
    audio = array(audio)
    if audio.ndim != 2:
        raise ValueError(
            f"audio must be (B, N), mono waveforms, not of shape {audio.shape}:"
            " give one waveform as x[None], also within vmap; average channels"
        )
    return audio


def images(features: ArrayLike) -> jax.Array:
    """Return feature images as an array of JAX; ValueError unless they are (B, F, T)."""
    features = array(features)
    if features.ndim != 3:
        raise ValueError(
            f"features must be (B, F, T), not of shape {features.shape}:"
            " give one image as x[None], also within vmap"
        )
    return features


def class_labels(labels: ArrayLike, examples: int) -> jax.Array:
    """Return labels as an array of JAX; ValueError unless they are (B, C) for that many examples."""
    labels = array(labels)
    if labels.ndim != 2 or len(labels) != examples:
        raise ValueError(
            f"labels must be (B, C), {examples} rows here, not of shape {labels.shape}:"
            " turn class indices y into np.eye(C)[y]"
        )
    return labels


def one_each(name: str, values: ArrayLike, examples: int) -> jax.Array:
    """Return a number for each example, float32 (B,); one number holds for all.

    Raises:
      ValueError: neither a number nor as many as there are examples.

    >>> one_each("rate", 1.25, 2).tolist()
    [1.25, 1.25]
    """
    values = array(values).astype(jnp.float32)
    if values.shape not in ((), (examples,)):
        raise ValueError(
            f"{name} must be a number or (B,), {examples} numbers here, not of shape {values.shape}"
        )
    return jnp.broadcast_to(values, (examples,))

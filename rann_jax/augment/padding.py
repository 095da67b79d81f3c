"""Telling sound from padding: clips shorter than the crop are padded with zeros at the end."""

import jax
import jax.numpy as jnp


def sound_length(audio: jax.Array) -> jax.Array:
    """Return each waveform's number of samples up to the last that is not zero: (B, N) -> int32 (B,).

    Zeros between sounds count; trailing ones are padding.

    >>> sound_length(jnp.asarray([[0.1, 0.0, 0.2, 0.0], [0.0, 0.0, 0.0, 0.0]])).tolist()
    [3, 0]
    """
    position = jnp.arange(1, audio.shape[-1] + 1, dtype=jnp.int32)
    return jnp.max(jnp.where(audio != 0, position[None], 0), axis=-1)


def is_sound(audio: jax.Array) -> jax.Array:
    """Return which samples of (B, N) are not padding, bool (B, N)."""
    return before(sound_length(audio), audio.shape[-1])


def before(length: jax.Array, samples: int) -> jax.Array:
    """Return which of `samples` positions are before `length` (B,), bool (B, samples)."""
    return jnp.arange(samples, dtype=jnp.int32)[None] < length[:, None]

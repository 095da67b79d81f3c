"""Changes of a sound's position in time: random crops and rolls."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import waveforms
from rann_jax.augment.padding import before, sound_length
from rann_jax.features.clipwise import split_like


def crop(key: jax.Array, audio: ArrayLike, *, samples: int) -> jax.Array:
    """Cut a crop out of each waveform, at its own random position within the sound.

    The start is drawn from U{0, ..., sound - samples}. A sound shorter than the crop begins at 0 and is
    followed by its padding.

    Args:
      key: random key.
      audio: (B, N).
      samples: length of the crop, at most N.

    Returns:
      (B, samples).

    Raises:
      ValueError: the crop is empty or longer than the waveforms, or audio is not (B, N).
    """
    audio = waveforms(audio)
    if not 0 < samples <= audio.shape[-1]:
        raise ValueError(f"crop: {samples} samples cannot be cut out of {audio.shape[-1]}")
    start = split_like(audio, _starts(key, audio, samples))

    def cut(waveform: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(waveform, start, samples)

    return jax.vmap(cut)(audio, start)


def _starts(key: jax.Array, audio: jax.Array, samples: int) -> jax.Array:
    latest = jnp.maximum(sound_length(audio) - samples, 0)
    return jax.random.randint(key, (len(audio),), 0, latest + 1, jnp.int32)


def roll(key: jax.Array, audio: ArrayLike, *, share: float) -> jax.Array:
    """Shift each waveform circularly in time.

    The shift is drawn from U(-share, share) of the sound's length. Only the sound is rolled; padding stays.

    Args:
      key: random key.
      audio: (B, N).
      share: largest shift as a share of the sound's length, at most 1/2, where all positions are equally
        likely.

    Returns:
      (B, N).

    Raises:
      ValueError: audio is not (B, N).
    """
    audio = waveforms(audio)
    length = sound_length(audio)
    shift = jnp.round(_shares(key, audio, share) * length.astype(jnp.float32)).astype(jnp.int32)
    position = jnp.arange(audio.shape[-1], dtype=jnp.int32)[None]
    source = (position - shift[:, None]) % jnp.maximum(length, 1)[:, None]
    rolled = jnp.take_along_axis(audio, source, axis=-1)
    return jnp.where(before(length, audio.shape[-1]), rolled, 0)


def _shares(key: jax.Array, audio: jax.Array, share: float) -> jax.Array:
    return jax.random.uniform(key, (len(audio),), jnp.float32, -share, share)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
    """`crop` to a share of the waveform, zero-padded to its old length; the default is ours.

    The loader already crops to t_c at random. This hides more of the sound, as a shorter t_c would.

    Attributes:
      share: length of the crop as a share of t_c.
    """

    on: ClassVar[str] = "audio"
    drawn: ClassVar[str] = "from {:.1%} of the clip on"

    share: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"crop: share={self.share} must be above 0 and at most 1")

    def _samples(self, audio: jax.Array) -> int:
        return max(1, round(self.share * audio.shape[-1]))

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return where the crops begin (B,), as a share of N, that a call draws with this key."""
        return _starts(key, audio, self._samples(audio)).astype(jnp.float32) / audio.shape[-1]

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N), of which share * N samples are left; labels are unchanged."""
        length = audio.shape[-1]
        kept = crop(key, audio, samples=self._samples(audio))
        return jnp.pad(kept, [(0, 0), (0, length - kept.shape[-1])]), labels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roll:
    """`roll` applied to the waveforms (ours).

    Attributes:
      share: largest shift as a share of the sound's length.
    """

    on: ClassVar[str] = "audio"
    drawn: ClassVar[str] = "{:+.1%} of the sound's length"

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ValueError(f"roll: share={self.share} must be between 0 and 0.5")

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return the shifts (B,), as shares of the sound's length, that a call draws with this key."""
        return _shares(key, audio, self.share)

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) rolled; labels are unchanged."""
        return roll(key, audio, share=self.share), labels

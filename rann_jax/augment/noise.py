"""White Gaussian noise at a random signal-to-noise ratio."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import floating, waveforms
from rann_jax.augment.padding import is_sound


def white_noise(key: jax.Array, audio: ArrayLike, *, low_snr: float, high_snr: float) -> jax.Array:
    """Add white Gaussian noise at a signal-to-noise ratio drawn from U(low_snr, high_snr) dB per example.

    Powers are means over the sound without its padding. The noise's power is that of the samples drawn, so
    the ratio is met exactly. Padding and silence stay zero.

    Args:
      key: random key.
      audio: (B, N); integers are converted to float32.
      low_snr: lowest ratio of the sound's power to the noise's, in dB.
      high_snr: highest ratio in dB.

    Returns:
      (B, N), not clipped.

    Raises:
      ValueError: audio is not (B, N).
    """
    audio = floating(waveforms(audio))
    snr = _ratios(key, audio, low_snr, high_snr)[:, None]
    noise_key = jax.random.split(key)[1]
    sound = is_sound(audio)
    noise = jnp.where(sound, jax.random.normal(noise_key, audio.shape, audio.dtype), 0)
    # Both sums are over the same samples, so their ratio is that of the means. float16 would end at 65504.
    energy, drawn = (
        jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True) for x in (audio, noise)
    )
    heard = energy > 0
    # At zero the square root has no derivative, so silence is replaced before it as well.
    ratio = jnp.where(heard, energy, 1) / jnp.where(drawn > 0, drawn, 1)
    scale = jnp.where(heard, jnp.sqrt(ratio), 0) * jnp.power(10.0, -snr.astype(jnp.float32) / 20)
    return audio + scale.astype(audio.dtype) * noise


def _ratios(key: jax.Array, audio: jax.Array, low_snr: float, high_snr: float) -> jax.Array:
    return jax.random.uniform(jax.random.split(key)[0], (len(audio),), audio.dtype, low_snr, high_snr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhiteNoise:
    """`white_noise` applied to the waveforms; the default range is ours.

    Attributes:
      low_snr: lowest signal-to-noise ratio in dB.
      high_snr: highest signal-to-noise ratio in dB.
    """

    on: ClassVar[str] = "audio"
    drawn: ClassVar[str] = "signal-to-noise ratio {:.1f} dB"

    low_snr: float = 10.0
    high_snr: float = 40.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low_snr <= self.high_snr < math.inf:
            raise ValueError(
                "white_noise: low_snr <= high_snr must hold, both finite,"
                f" not {self.low_snr} and {self.high_snr}"
            )

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return the signal-to-noise ratio in dB (B,) that a call draws with this key."""
        return _ratios(key, floating(audio), self.low_snr, self.high_snr)

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) with noise; labels are unchanged."""
        return white_noise(key, audio, low_snr=self.low_snr, high_snr=self.high_snr), labels

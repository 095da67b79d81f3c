"""Random gain, because recordings differ in level."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import floating, waveforms


def gain(key: jax.Array, audio: ArrayLike, *, low_db: float, high_db: float) -> jax.Array:
    """Scale each waveform by a gain drawn from U(low_db, high_db).

    Args:
      key: random key.
      audio: (B, N), integers are converted to float32; the result is not clipped.
      low_db: lowest gain in dB.
      high_db: highest gain in dB.

    Returns:
      (B, N).

    Raises:
      ValueError: audio is not (B, N).
    """
    audio = floating(waveforms(audio))
    level = _levels(key, audio, low_db, high_db)[:, None]
    return audio * jnp.power(10.0, level / 20)


def _levels(key: jax.Array, audio: jax.Array, low_db: float, high_db: float) -> jax.Array:
    return jax.random.uniform(key, (len(audio),), audio.dtype, low_db, high_db)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """`gain` applied to the waveforms; the default range is ours.

    Attributes:
      low_db: lowest gain in dB.
      high_db: highest gain in dB.
    """

    on: ClassVar[str] = "audio"
    drawn: ClassVar[str] = "{:+.1f} dB"

    low_db: float = -6.0
    high_db: float = 6.0

    def __post_init__(self) -> None:
        if not -math.inf < self.low_db <= self.high_db < math.inf:
            raise ValueError(
                f"gain: low_db <= high_db must hold, both finite, not {self.low_db} and {self.high_db}"
            )

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return the gain in dB (B,) that a call draws with this key."""
        return _levels(key, floating(audio), self.low_db, self.high_db)

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) at another level; labels are unchanged."""
        return gain(key, audio, low_db=self.low_db, high_db=self.high_db), labels

"""Pitch shifting: the sound is stretched by the phase vocoder, then resampled back to its old duration.

This is `librosa.effects.pitch_shift`, with a separate shift for each example. Side effects: formants move
with the pitch, so a voice shifted up sounds like a smaller speaker. A shift down by n semitones leaves the
spectrum empty above 2^(-n/12) of the Nyquist frequency. Attacks are smeared, as by every plain phase vocoder.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import one_each, waveforms
from rann_jax.augment.interpolation import resample_each
from rann_jax.augment.padding import is_sound
from rann_jax.augment.stretch import default_n_fft, stretch


def pitch_shift(audio: ArrayLike, semitones: ArrayLike, *, highest: float, n_fft: int = 2048) -> jax.Array:
    """Change the pitch of each waveform but not its duration.

    Args:
      audio: (B, N); trailing zeros are padding and stay zero.
      semitones: (B,), or one number for all; twelve are an octave, positive is up.
      highest: the largest shift that can occur, static. A sound that is shifted further loses its end.
      n_fft: window of the phase vocoder in samples, a multiple of 4.

    Returns:
      float32 (B, N).

    Raises:
      ValueError: n_fft is not a multiple of 4, N is above 2^20, 1,048,576, or audio or semitones has
        another shape.
    """
    audio = waveforms(audio)
    samples = audio.shape[-1]
    step = jnp.exp2(one_each("semitones", semitones, len(audio)) / 12)
    room = math.ceil(samples * 2 ** (max(highest, 0) / 12))
    slower = stretch(audio, 1 / step, n_fft=n_fft, samples=room)
    return jnp.where(is_sound(audio), resample_each(slower, step, samples=samples), 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pitch:
    """`pitch_shift` by semitones drawn from U(lowest, highest); the default range is from a weak source.

    Attributes:
      sample_rate: sample rate in Hz; it sets the length of the windows.
      lowest: lowest shift in semitones.
      highest: highest shift in semitones.
    """

    on: ClassVar[str] = "audio"
    one_by_one: ClassVar[bool] = True
    drawn: ClassVar[str] = "{:+.2f} semitones"

    sample_rate: float
    lowest: float = -2.0
    highest: float = 2.0

    def __post_init__(self) -> None:
        if not -24 <= self.lowest <= self.highest <= 24:
            raise ValueError(
                f"pitch: -24 <= lowest <= highest <= 24 must hold, got {self.lowest} and {self.highest}"
            )

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return the shifts in semitones (B,) that a call draws with this key."""
        return jax.random.uniform(key, (len(audio),), jnp.float32, self.lowest, self.highest)

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) at another pitch; labels are unchanged."""
        semitones = self.draw(key, audio)
        shifted = pitch_shift(audio, semitones, highest=self.highest, n_fft=default_n_fft(self.sample_rate))
        return shifted, labels

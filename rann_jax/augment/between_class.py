"""Between-class mixing: two sounds are mixed so that their perceived loudness matches their label weights.

Source: Tokozume, Ushiku and Harada, "Learning from between-class examples for deep sound recognition",
ICLR 2018. Windows, overlap and the floor are those of the authors' code.
"""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rann_jax.augment.batch import class_labels, floating, waveforms
from rann_jax.augment.mixup import partners
from rann_jax.features import signal
from rann_jax.features.clipwise import devicewise
from rann_jax.features.power import power_spectrum

FLOOR_DB = -80.0


def a_weighting(sample_rate: float, n_fft: int) -> np.ndarray:
    """Return the A-weighting of IEC 61672 at the bins of an FFT, in dB, float64 (1 + n_fft // 2,).

    Values below -80 dB are raised to -80 dB.

    >>> a_weighting(2000, 2).round(1).tolist()
    [-80.0, 0.0]
    """
    squared = np.square(np.fft.rfftfreq(n_fft, 1 / sample_rate))
    squared[0] = 1.0  # 0 Hz has no logarithm; the floor hides it
    weight = 20 * (
        2 * np.log10(12194.0)
        + 2 * np.log10(squared)
        - np.log10(squared + 12194.0**2)
        - np.log10(squared + 20.6**2)
        - 0.5 * np.log10(squared + 107.7**2)
        - 0.5 * np.log10(squared + 737.9**2)
    )
    return np.maximum(weight + 2.0, FLOOR_DB)


def sound_pressure(audio: ArrayLike, *, sample_rate: float) -> jax.Array:
    """Return the greatest A-weighted sound pressure level of (B, N) over short windows, in dB, (B,).

    The windows are Hann windows with half overlap; their length is the power of two of samples nearest to
    0.1 s. Levels are at least -80 dB. Sound after the last whole window, less than half a window, is ignored.

    Raises:
      ValueError: audio is not (B, N).
    """
    audio = waveforms(audio)
    n_fft = 2 ** round(math.log2(0.1 * sample_rate))
    audio = jnp.pad(audio, [(0, 0), (0, max(0, n_fft - audio.shape[-1]))])
    window = signal.window_samples("hann", n_fft, n_fft)
    weights = np.power(10, a_weighting(sample_rate, n_fft) / 10).astype(np.float32)

    def weighted_power(frames: jax.Array) -> jax.Array:
        power = power_spectrum(frames, window, n_fft)
        return jnp.sum(power * weights[None, None], axis=-1, keepdims=True)

    power = signal.map_frames(weighted_power, audio, n_fft, n_fft // 2)
    return 10 * jnp.log10(jnp.maximum(power.max(axis=(-2, -1)), 10 ** (FLOOR_DB / 10)))


def mix_ratio(ratio: jax.Array, first_db: jax.Array, second_db: jax.Array) -> jax.Array:
    """Return the weight t of the first sound, t = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r).

    Args:
      ratio: r, the share of the first label, (B,).
      first_db: G1, sound pressure level of the first sound, (B,).
      second_db: G2, sound pressure level of the second sound, (B,).

    Returns:
      t, (B,); the sounds have weights t and 1 - t. It is 0 where r is 0, and 1 where r is 1.
    """
    louder = jnp.power(10.0, (first_db - second_db) / 20)
    return ratio / (ratio + louder * (1 - ratio))


def between_class(
    key: jax.Array, audio: ArrayLike, labels: ArrayLike, *, sample_rate: float
) -> tuple[jax.Array, jax.Array]:
    """Mix each example with a partner, with loudness in the ratio of their labels, r ~ U(0, 1) per example.

    The sound is (t x1 + (1 - t) x2) / sqrt(t^2 + (1 - t)^2), the label r y1 + (1 - r) y2, with t from
    `mix_ratio`. The partner is the next example of the batch, which is in random order, and may be of the
    same class (ours: the paper draws two classes). A batch of one example is not mixed.

    Args:
      key: random key.
      audio: (B, N); integers are converted to float32.
      labels: (B, C), one-hot or multi-hot, of any type.
      sample_rate: sample rate in Hz.

    Returns:
      audio and labels, mixed.

    Raises:
      ValueError: audio is not (B, N), or labels are not (B, C), such as class indices (B,).
    """
    audio = floating(waveforms(audio))
    labels = floating(class_labels(labels, len(audio)))
    if len(audio) == 1:  # mixed with itself it would be up to 3 dB louder
        return audio, labels
    # Never 0, so that t is defined for silence mixed with silence or with any sound.
    tiny = float(np.finfo(np.float32).eps)
    ratio = jax.random.uniform(key, (len(audio),), jnp.float32, tiny, 1.0)
    level = devicewise(functools.partial(sound_pressure, sample_rate=sample_rate), audio)
    first = mix_ratio(ratio, level, partners(level))[:, None].astype(audio.dtype)
    # This is 1 - t; the subtraction would lose precision if the first sound is much softer.
    second = mix_ratio(1 - ratio, partners(level), level)[:, None].astype(audio.dtype)
    mixed = (first * audio + second * partners(audio)) / jnp.sqrt(jnp.square(first) + jnp.square(second))
    share = ratio[:, None].astype(labels.dtype)
    return mixed, share * labels + (1 - share) * partners(labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BetweenClass:
    """`between_class` applied to the waveforms.

    Attributes:
      sample_rate: sample rate in Hz.
    """

    on: ClassVar[str] = "audio"

    sample_rate: float

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) and labels (B, C), mixed."""
        return between_class(key, audio, jnp.asarray(labels), sample_rate=self.sample_rate)

"""Time stretching by a phase vocoder, with a separate rate for each example.

This is `librosa.effects.time_stretch` (0.11): spectra at times rate * k, with magnitudes interpolated and
phases accumulated. Phases are kept as unit phasors, so accumulating them is a product, which an associative
scan computes for all frames at once. Shapes do not depend on the rate. A side effect, as of every plain phase
vocoder, is that attacks are smeared over a window.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rann_jax.augment.batch import one_each, waveforms
from rann_jax.augment.padding import before, sound_length
from rann_jax.features import signal
from rann_jax.features.stft import Framing
from rann_jax.features.stft import spectra as short_time_spectra


def stretch(audio: ArrayLike, rate: ArrayLike, *, n_fft: int = 2048, samples: int | None = None) -> jax.Array:
    """Change the speed of each waveform but not its pitch.

    Args:
      audio: (B, N); trailing zeros are padding.
      rate: (B,), or one number for all; above 1 is faster. The sound then lasts round(length / rate)
        samples.
      n_fft: window in samples, a multiple of 4; the hop is a quarter of it.
      samples: number of samples to return; default N.

    Returns:
      float32 (B, samples), cut or zero-padded at the end.

    Raises:
      ValueError: n_fft is not a multiple of 4, or audio or rate has another shape.
    """
    signal.check_positive(n_fft=n_fft)
    if n_fft % 4:
        raise ValueError(f"n_fft={n_fft} must be a multiple of 4: the hop is a quarter")
    audio = waveforms(audio).astype(jnp.float32)
    rate = one_each("rate", rate, len(audio))
    samples, hop = samples or audio.shape[-1], n_fft // 4
    length = sound_length(audio)
    spectra = short_time_spectra(audio, Framing(n_fft, hop, n_fft, "hann", True, "constant"))
    frames = spectra.shape[1]
    # The frames that the clip would have without padding, and two empty frames, as librosa 0.11 appends.
    own_frames = 1 + length // hop
    spectra = jnp.where(before(own_frames, frames)[..., None], spectra, 0)
    spectra = jnp.pad(spectra, [(0, 0), (0, 2), (0, 0)])

    # As many frames as reach into the samples that are returned.
    steps = jnp.arange(1 + (samples + n_fft // 2) // hop, dtype=jnp.float32)[None] * rate[:, None]
    left = jnp.minimum(jnp.floor(steps).astype(jnp.int32), frames)
    share = (steps - jnp.floor(steps))[..., None]
    magnitude = jnp.abs(spectra)
    phasor = _unit(spectra)

    def at(frames: jax.Array, index: jax.Array) -> jax.Array:
        return jax.vmap(lambda frames, index: frames[index])(frames, index)

    advance = jnp.conj(at(phasor, left)) * at(phasor, left + 1)
    turns = jnp.concatenate([phasor[:, :1], advance[:, :-1]], axis=1)
    phase = jax.lax.associative_scan(jnp.multiply, turns, axis=1)
    phase = _unit(phase)  # rounding changed the magnitude
    played = before(jnp.ceil(own_frames.astype(jnp.float32) / rate).astype(jnp.int32), steps.shape[1])
    loud = (1 - share) * at(magnitude, left) + share * at(magnitude, left + 1)
    stretched = jnp.where(played[..., None], loud, 0).astype(phase.dtype) * phase
    out = _overlap_add(stretched, played, n_fft, hop)[:, n_fft // 2 :][:, :samples]
    out = jnp.pad(out, [(0, 0), (0, samples - out.shape[-1])])
    return jnp.where(before(jnp.round(length.astype(jnp.float32) / rate).astype(jnp.int32), samples), out, 0)


def _unit(values: jax.Array) -> jax.Array:
    """Return complex values of the same phase and magnitude 1; 1 where they are zero."""
    size = jnp.abs(values)
    return jnp.where(size > 0, values / jnp.where(size > 0, size, 1).astype(values.dtype), 1)


def _overlap_add(spectra: jax.Array, played: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Return waveforms of spectra (B, T, F), normalised by the windows of the frames in `played` (B, T)."""
    window = signal.window_samples("hann", n_fft, n_fft).astype(np.float32)[None, None]

    def add(frames: jax.Array) -> jax.Array:
        batch, count, _ = frames.shape
        parts = frames.reshape(batch, count, 4, hop)
        total = jnp.zeros((batch, count + 3, hop), frames.dtype)
        for part in range(4):
            total = total.at[:, part : part + count].add(parts[:, :, part])
        return total.reshape(batch, -1)

    sound = add(jnp.fft.irfft(spectra, n=n_fft) * window)
    energy = add(played[..., None].astype(jnp.float32) * jnp.square(window))
    tiny = float(np.finfo(np.float32).tiny)
    return sound / jnp.where(energy > tiny, energy, 1)


def default_n_fft(sample_rate: float) -> int:
    """Return the power of two of samples nearest to 46 ms: librosa's 2048 at 44.1 kHz.

    >>> default_n_fft(44100), default_n_fft(16000), default_n_fft(8000)
    (2048, 1024, 512)
    """
    return 2 ** round(math.log2(sample_rate * 2048 / 44100))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """`stretch` by a rate drawn log-uniformly; the default range is ours.

    Attributes:
      slowest: lowest rate.
      fastest: highest rate.
      sample_rate: sample rate in Hz; it sets the length of the windows.
    """

    on: ClassVar[str] = "audio"
    one_by_one: ClassVar[bool] = True
    drawn: ClassVar[str] = "{:.2f} times as fast"

    sample_rate: float
    slowest: float = 0.8
    fastest: float = 1.25

    def __post_init__(self) -> None:
        if not 0.25 <= self.slowest <= self.fastest <= 4:
            raise ValueError(
                f"stretch: 0.25 <= slowest <= fastest <= 4 must hold, got {self.slowest} and {self.fastest}"
            )

    def draw(self, key: jax.Array, audio: jax.Array) -> jax.Array:
        """Return the rates (B,) that a call draws with this key."""
        bounds = math.log2(self.slowest), math.log2(self.fastest)
        return jnp.exp2(jax.random.uniform(key, (len(audio),), jnp.float32, *bounds))

    def __call__(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) at another speed, cut or padded to N; labels are unchanged."""
        rate = self.draw(key, audio)
        return stretch(audio, rate, n_fft=default_n_fft(self.sample_rate)), labels

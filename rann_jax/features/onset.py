"""Onset strength, equal to librosa's: how much louder the sound becomes from frame to frame."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import clipwise
from rann_jax.features.decibels import power_to_db
from rann_jax.features.mel import MEL_DEFAULTS, Mel, check_mel


def _local_maximum(S: jax.Array, size: int) -> jax.Array:
    """Return the maximum over `size` neighbouring bands of `(..., F, T)`, mirrored at the ends."""
    widths = [(0, 0)] * (S.ndim - 2) + [(size // 2, size - 1 - size // 2), (0, 0)]
    window = (1,) * (S.ndim - 2) + (size, 1)
    padded = jnp.pad(S, widths, mode="symmetric")
    return jax.lax.reduce_window(padded, -jnp.inf, jax.lax.max, window, (1,) * S.ndim, padding="VALID")


def _detrend(envelope: jax.Array) -> jax.Array:
    """Remove the slow part: `out[t] = x[t] - x[t - 1] + 0.99 out[t - 1]`, along the last axis."""
    widths = [(0, 0)] * (envelope.ndim - 1) + [(1, 0)]
    steps = jnp.diff(jnp.pad(envelope, widths), axis=-1)

    def after(first: tuple, second: tuple) -> tuple:
        return first[0] * second[0], first[1] * second[0] + second[1]

    decay = jnp.full_like(steps, 0.99)
    return jax.lax.associative_scan(after, (decay, steps), axis=-1)[1]


@dataclasses.dataclass(frozen=True)
class Rise:
    """Settings of an onset envelope: checked, hashable as one static argument of `jax.jit`.

    `delay` is the number of zeros that the envelope begins with; the others are as in `onset_strength`.
    """

    lag: int
    max_size: int
    delay: int
    detrend: bool
    aggregate: Callable

    def envelope(self, power: jax.Array) -> jax.Array:
        """Return the envelope `(..., T)` of mel power `(..., F, T)`."""
        level = power_to_db(power)
        before = level if self.max_size == 1 else _local_maximum(level, self.max_size)
        rise = jnp.maximum(level[..., self.lag :] - before[..., : -self.lag], jnp.float32(0))
        envelope = self.aggregate(rise, axis=-2)
        envelope = jnp.pad(envelope, [(0, 0)] * (envelope.ndim - 1) + [(self.delay, 0)])
        if self.detrend:
            envelope = _detrend(envelope)
        return envelope[..., : level.shape[-1]]


@functools.partial(jax.jit, static_argnames=("mel", "rise"))
def _onset_strength(y: jax.Array, mel: Mel, rise: Rise) -> jax.Array:
    return clipwise(lambda clips: rise.envelope(mel.spectrogram(clips)), y)


def onset_strength(
    y: ArrayLike,
    *,
    sr: float = 22050,
    n_fft: int = 2048,
    hop_length: int = 512,
    lag: int = 1,
    max_size: int = 1,
    detrend: bool = False,
    center: bool = True,
    aggregate: Callable | None = None,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> jax.Array:
    """Onset strength envelope, equal to `librosa.onset.onset_strength`.

    This is the rise of each mel band's level in dB over `lag` frames, averaged over the bands. As in
    `power_to_db`, levels more than 80 dB below the clip's own peak are floored.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      n_fft: samples per frame.
      hop_length: samples between frames.
      lag: number of frames over which the rise is taken.
      max_size: number of neighbouring bands over which the earlier frame's maximum is taken; above 1 it
        suppresses vibrato.
      detrend: remove the slow part of the envelope.
      center: shift the envelope by half a frame, so that an onset is where it sounds.
      aggregate: how bands are combined, a jax.numpy function called with `axis=-2`; default
        `jax.numpy.mean`. Define it once: each new function, such as a lambda in a loop, compiles again.
      n_mels: number of mel bands.
      fmin: lowest frequency in Hz.
      fmax: highest frequency in Hz; default `sr / 2`.

    Returns:
      float32 `(..., T)`, T = 1 + N // hop_length for even `n_fft`. `center` does not change T: the STFT is
      always centred.

    Raises:
      ValueError: as `melspectrogram`; `lag` or `max_size` that is not a positive integer.

    >>> import numpy as np
    >>> y = np.zeros(22050, np.float32)
    >>> y[10000:] = np.sin(np.arange(12050) / 2)  # between the frames 19 and 20
    >>> np.argmax(onset_strength(y)).item()
    20
    """
    signal.check_positive(lag=lag, max_size=max_size, n_fft=n_fft, hop_length=hop_length)
    if aggregate is not None and not callable(aggregate):
        raise ValueError(f"aggregate must be a function such as jnp.median, got {aggregate!r}")
    rise = Rise(
        lag=lag,
        max_size=max_size,
        delay=lag + n_fft // (2 * hop_length) if signal.flag("center", center) else lag,
        detrend=signal.flag("detrend", detrend),
        aggregate=jnp.mean if aggregate is None else aggregate,
    )
    bands = {"sr": sr, "n_fft": n_fft, "hop_length": hop_length, "n_mels": n_mels, "fmin": fmin, "fmax": fmax}
    y, mel = check_mel(y, **{**MEL_DEFAULTS, **bands})
    return _onset_strength(y, mel, rise)

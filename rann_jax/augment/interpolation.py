"""Band-limited resampling in which each waveform has its own ratio, known only on the device.

The filter is that of libsoxr's `soxr_hq`, librosa's default. It passes frequencies below 0.913 of the lower
Nyquist frequency and none above the lower Nyquist frequency, so there is no aliasing. It is applied to the
spectrum of the whole waveform. The same step doubles the rate, so that a short windowed sinc can then
interpolate at any position.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from rann_jax.features.resample import HALF_WIDTH, impulse_response

# At twice the rate, sound ends at half the Nyquist frequency and its images begin at three halves of it. A
# Kaiser window of 12 samples with this beta keeps the images 90 dB down (Kaiser's formulas).
TAPS, BETA = 12, 8.96
BEFORE = TAPS // 2 - 1  # number of taps before a position
PHASES = 512  # of the tabulated sinc; errors of linear interpolation between them are below the images
HALF_BITS = 12  # a fixed-point position has twice as many fractional bits
MOST_SAMPLES = 2 ** (32 - HALF_BITS)
# The filter's gain is tabulated from LOW to 1, in units of the lower Nyquist frequency; below LOW it is 1.
LOW, POINTS = 0.9, 512


def resample_each(audio: jax.Array, step: jax.Array, *, samples: int) -> jax.Array:
    """Read each waveform at the positions 0, step, 2 step, ..., low-passed if the step exceeds 1.

    Args:
      audio: (B, N); treated as silent before and after.
      step: (B,) positive, float32; distance between outputs in samples of the waveform, that is, the old rate
        divided by the new.
      samples: length of each output.

    Returns:
      (B, samples), float32.

    Raises:
      ValueError: `samples` is above 2^20, 1,048,576.
    """
    if samples > MOST_SAMPLES:
        raise ValueError(f"resample_each: {samples} samples are more than {MOST_SAMPLES}: use shorter crops")
    # Room for the filter's ringing after the end; ringing before the beginning wraps around to there.
    size = 2 * scipy.fft.next_fast_len(audio.shape[-1] // 2 + 2 * HALF_WIDTH["soxr_hq"], real=True)
    frequency = jnp.linspace(0, 1, size // 2 + 1, dtype=jnp.float32)
    passed = _gain(frequency[None] * jnp.maximum(step, 1)[:, None])
    spectrum = jnp.fft.rfft(audio, n=size) * passed.astype(jnp.complex64)
    doubled = 2 * jnp.roll(jnp.fft.irfft(spectrum, n=2 * size), BEFORE, axis=1)
    whole, part = _positions(2 * step, samples)
    read = jax.vmap(_between_samples)(doubled, whole, part)
    return jnp.where(whole < 2 * audio.shape[-1], read, 0)


@functools.lru_cache(maxsize=1)
def _tabulated_gain() -> np.ndarray:
    """Return the gain of the filter at POINTS + 1 frequencies from LOW to 1.

    It is measured from libsoxr's impulse response at a ratio near 1. For ratios from 0.89 to 1.12 the gain
    differed by less than 0.5 dB where it is above -50 dB (soxr 1.1).
    """
    up, down = 18, 17
    taps = impulse_response(up, down, "soxr_hq")
    at = np.arange(len(taps)) - len(taps) // 2
    frequency = np.linspace(LOW, 1, POINTS + 1)
    gain = np.cos(np.pi * down / up * frequency[:, None] * at) @ taps * down / up
    gain[-1] = 0
    return gain.astype(np.float32)


def _gain(frequency: jax.Array) -> jax.Array:
    place = jnp.clip((frequency - LOW) / (1 - LOW) * POINTS, 0, POINTS)
    left = jnp.minimum(jnp.floor(place), POINTS - 1)
    table, row = jnp.asarray(_tabulated_gain()), left.astype(jnp.int32)
    return table[row] + (place - left) * (table[row + 1] - table[row])


def _positions(step: jax.Array, samples: int) -> tuple[jax.Array, jax.Array]:
    """Return 0, step, 2 step, ... as whole samples, int32, and fractions, float32, each (B, samples).

    Computed in fixed point, because float32 has too few bits for the fraction of a position of a hundred
    thousand samples.
    """
    half = 2**HALF_BITS
    index = jnp.arange(samples, dtype=jnp.uint32)[None]
    whole_step = jnp.floor(step)[:, None]
    rest_step = jnp.round((step[:, None] - whole_step) * half**2).astype(jnp.uint32)
    low = index * (rest_step % half)
    high = index * (rest_step // half) + low // half  # below 2^32, as the index is below MOST_SAMPLES
    whole = index * whole_step.astype(jnp.uint32) + high // half
    part = (high % half * half + low % half).astype(jnp.float32) / half**2
    return whole.astype(jnp.int32), part


@functools.lru_cache(maxsize=1)
def _windowed_sinc() -> np.ndarray:
    """Return weights (TAPS, PHASES + 1) of the samples around a position, by its fraction of a sample."""
    at = np.arange(-BEFORE, TAPS - BEFORE)[:, None] - np.linspace(0, 1, PHASES + 1)
    window = np.i0(BETA * np.sqrt(np.maximum(1 - np.square(2 * at / TAPS), 0))) / np.i0(BETA)
    return (np.sinc(at) * window).astype(np.float32)


def _between_samples(sound: jax.Array, whole: jax.Array, part: jax.Array) -> jax.Array:
    """Return the sound at whole + part; `sound` has been shifted by BEFORE samples."""
    place = part * PHASES
    row = jnp.minimum(jnp.floor(place), PHASES - 1)
    share, row = place - row, row.astype(jnp.int32)
    # One tap after another: on a CPU this is five times as fast as gathering rows.
    out = jnp.zeros_like(part)
    for tap, weights in enumerate(jnp.asarray(_windowed_sinc())):
        weight = weights[row] + share * (weights[row + 1] - weights[row])
        out += weight * sound[whole + tap]
    return out

"""Resampling, equal to libsoxr's linear-phase filters; scipy's polyphase filter is in `polyphase`.

libsoxr is linear and, away from the first samples, time-invariant, so its impulse response describes it
almost completely. The response is measured once per pair of rates, on the host. On the device the filter is
applied to the spectra of overlapping blocks (overlap-save). A block holds whole periods of the two
rates, so changing the rate means truncating the spectrum or extending it with zeros. To decimate by a whole
factor, a CPU uses one matrix product instead. Where libsoxr works in several stages, each stage drops its
output before time zero. The effect is a linear function of the first samples; it is measured and added.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import soxr
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise, clipwise
from rann_jax.features.polyphase import polyphase_resample

# Beyond this many periods of the lower rate on either side, the filter's impulse response is below 1e-6 of
# its peak (measured on soxr 1.1); soxr_hq at 2:1 is a symmetric FIR of 367 taps.
HALF_WIDTH = {"soxr_vhq": 124, "soxr_hq": 100, "soxr_mq": 100, "soxr_lq": 64}

# The greatest ratio of two rates. The cost of the one-time plan for a pair of rates grows with the square of
# the ratio: 128 to 1 needs a matrix of 52 MB and 1.3 s in libsoxr, 44100 to 345 Hz half a minute, 127 to 1
# up to a minute (measured).
GREATEST_FACTOR = 128

# Outputs per product with the decimation matrix: on a CPU with AVX-512, decimating by 2, the fastest of 32,
# 48, 64 and 96.
OUTPUTS = 48

# Samples in a block at the higher of the two rates: larger blocks overlap less, smaller ones fit the cache.
BLOCK = 4096


@functools.lru_cache(maxsize=32)
def impulse_response(up: int, down: int, res_type: str) -> np.ndarray:
    """Return soxr's impulse response when resampling by `up / down` (in lowest terms).

    It is float64, of odd length, with the instant of the impulse in the middle, and made exactly symmetric.
    """
    half = math.ceil(HALF_WIDTH[res_type] * max(1.0, up / down))
    periods = 2 * math.ceil((half + 64) / up)
    pulse = np.zeros(2 * periods * down)
    pulse[periods * down] = 1.0
    answer = soxr.resample(pulse, down, up, quality=res_type)
    middle = periods * up
    taps = answer[middle - half : middle + half + 1]
    return (taps + taps[::-1]) / 2


@functools.lru_cache(maxsize=32)
def _start_correction(up: int, down: int, res_type: str) -> np.ndarray | None:
    """Return how soxr's first outputs deviate from a time-invariant filter, `(inputs, outputs)`, or None."""
    half = len(impulse_response(up, down, res_type)) // 2
    # When decimating by 2**k or 3 * 2**k the sharp filter is the last stage, and the short filters before it
    # reach at most 4.9 periods (measured). Otherwise a later stage drops what the sharp filter makes of the
    # first samples, so the sharp filter's whole width counts.
    short = up == 1 and down // (down & -down) in (1, 3)
    inputs = 5 * down if short else math.ceil(half * down / up)
    # A pulse this many periods later gets the full, time-invariant response.
    late = math.ceil(2 * inputs / down)
    correction = np.empty((inputs, half))
    for sample in range(inputs):
        pulse = np.zeros((late + 2 + math.ceil(half / up)) * down + inputs)
        pulse[sample] = 1.0
        pulses = np.stack([pulse, np.roll(pulse, late * down)], axis=1)
        answers = soxr.resample(pulses, down, up, quality=res_type)
        correction[sample] = answers[:half, 0] - answers[late * up :][:half, 1]
    inputs_that_count, outputs_that_count = np.nonzero(np.abs(correction) > 1e-7)
    if np.max(np.abs(correction)) < 1e-6:
        return None
    kept = correction[: inputs_that_count.max() + 1, : outputs_that_count.max() + 1]
    return kept.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _block_plan(up: int, down: int, res_type: str, n: int) -> tuple[int, int, int, np.ndarray]:
    """Plan the blocks for `n` samples; return periods in a block, periods in its margin, count, response.

    A period is `down` samples in and `up` samples out. The frequency response `(K,)` is that of a
    filter symmetric about time zero, so its imaginary part is zero.
    """
    taps = impulse_response(up, down, res_type)
    margin = math.ceil((len(taps) // 2) / up)
    whole = math.ceil(n / down)
    periods = min(whole, max(2 * margin, BLOCK // max(up, down))) + 2 * margin
    if periods < whole + 2 * margin:
        periods = 2 * scipy.fft.next_fast_len(math.ceil(periods / 2), real=True)
    count = math.ceil(whole / (periods - 2 * margin))
    block = np.zeros(periods * up)
    block[: len(taps)] = taps
    response = np.fft.rfft(np.roll(block, -(len(taps) // 2))).real
    kept = min(periods * up, periods * down) // 2 + 1
    return periods, margin, count, response[:kept].astype(np.complex64)


def _overlap_save(y: jax.Array, up: int, down: int, res_type: str) -> jax.Array:
    """Resample `(..., N)` to `(..., round(N up / down))` by filtering the spectra of blocks."""
    n = y.shape[-1]
    periods, margin, count, response = _block_plan(up, down, res_type, n)
    step = (periods - 2 * margin) * down
    right = count * step + margin * down - n
    padded = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(margin * down, right)])
    blocks = signal.frame(padded, periods * down, step)
    spectra = jnp.fft.rfft(blocks)[..., : len(response)]
    spectra = spectra * response.reshape((1,) * (spectra.ndim - 1) + response.shape)
    out = jnp.fft.irfft(spectra, n=periods * up)[..., margin * up : (periods - margin) * up]
    return out.reshape(*out.shape[:-2], -1)[..., : rounded_length(n, up, down)]


@functools.lru_cache(maxsize=32)
def _decimation_matrix(down: int, res_type: str) -> np.ndarray:
    """Return the filter as a matrix `(W, OUTPUTS)` that makes `OUTPUTS` outputs from `W` samples.

    The samples begin `margin = half * down` before the instant of the first output, where `half` is half the
    length of `impulse_response`, rounded down, and `W = (OUTPUTS - 1) * down + 2 * margin + 1`.
    """
    margin = len(impulse_response(1, down, res_type)) // 2 * down
    # The response to one pulse holds every `down`-th tap: `down` pulses, one sample apart, give all taps.
    pulses = np.zeros((4 * margin, down))
    pulses[2 * margin + np.arange(down), np.arange(down)] = 1.0
    answers = soxr.resample(pulses, down, 1, quality=res_type)
    taps = answers[:, ::-1].ravel()[down - 1 :][margin : 3 * margin + 1]
    taps = (taps + taps[::-1]) / 2
    matrix = np.zeros(((OUTPUTS - 1) * down + len(taps), OUTPUTS))
    for output in range(OUTPUTS):
        matrix[output * down :][: len(taps), output] = taps
    return matrix.astype(np.float32)


def _decimate(y: jax.Array, down: int, res_type: str) -> jax.Array:
    """Decimate `(..., N)` to `(..., round(N / down))` with the decimation matrix.

    The product is written as a convolution over rows of `OUTPUTS * down` samples, to avoid copying
    overlapping blocks.
    """
    n = y.shape[-1]
    matrix = _decimation_matrix(down, res_type)
    margin, step = (len(matrix) - (OUTPUTS - 1) * down) // 2, OUTPUTS * down
    reach = math.ceil(len(matrix) / step)
    count = math.ceil(n / step)
    padding = (margin, (count + reach - 1) * step - margin - n)
    rows = jnp.pad(y.reshape(-1, n), [(0, 0), padding]).reshape(-1, count + reach - 1, step)
    kernel = np.pad(matrix, [(0, reach * step - len(matrix)), (0, 0)]).reshape(reach, step, OUTPUTS)
    out = jax.lax.conv_general_dilated(
        rows,
        jnp.asarray(kernel),
        window_strides=(1,),
        padding="VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return out.reshape(*y.shape[:-1], -1)[..., : rounded_length(n, 1, down)]


def rounded_length(n: int, up: int, down: int) -> int:
    """Return the number of samples that libsoxr makes from `n`: halves are rounded up."""
    return (2 * n * up + down) // (2 * down)


def soxr_resample(y: jax.Array, up: int, down: int, res_type: str = "soxr_hq") -> jax.Array:
    """Resample `(..., N)` by `up / down` in lowest terms to `(..., round(N up / down))`."""
    return _with_start(_overlap_save(y, up, down, res_type), y, up, down, res_type)


def soxr_decimate(y: jax.Array, down: int, res_type: str) -> jax.Array:
    """Resample `(..., N)` by `1 / down` to `(..., round(N / down))`, by the method that suits the device.

    The spectral method removes everything above the new Nyquist frequency. The matrix, with float32 taps,
    leaves it at -128 dB: good enough for one decimation, but not for the CQT's, octave after octave.
    """
    out = jax.lax.platform_dependent(
        y,
        cpu=functools.partial(_decimate, down=down, res_type=res_type),
        default=functools.partial(_overlap_save, up=1, down=down, res_type=res_type),
    )
    return _with_start(out, y, 1, down, res_type)


def _with_start(out: jax.Array, y: jax.Array, up: int, down: int, res_type: str) -> jax.Array:
    """Correct the first samples of the resampled `out` for the start of libsoxr's stages."""
    n = y.shape[-1]
    correction = _start_correction(up, down, res_type)
    if correction is None:
        return out
    inputs, outputs = min(n, correction.shape[0]), min(out.shape[-1], correction.shape[1])
    start = jnp.matmul(
        y[..., :inputs],
        jnp.asarray(correction[:inputs, :outputs]),
        precision=jax.lax.Precision.HIGHEST,
    )
    return out.at[..., :outputs].add(start)


@functools.partial(jax.jit, static_argnames=("up", "down", "res_type", "length", "gain"))
def _resample(y: jax.Array, *, up: int, down: int, res_type: str, length: int, gain: float) -> jax.Array:
    if res_type == "polyphase":
        out = clipwise(lambda clips: polyphase_resample(clips, up, down), y)
    elif up == 1:
        out = batchwise(lambda clips: soxr_decimate(clips, down, res_type), y)
    else:
        out = clipwise(lambda clips: soxr_resample(clips, up, down, res_type), y)
    missing = max(0, length - out.shape[-1])
    out = jnp.pad(out, [(0, 0)] * (out.ndim - 1) + [(0, missing)])[..., :length]
    return out * jnp.float32(gain)


def _whole(name: str, rate: Any) -> int:
    hertz = signal.number(name, rate)
    if not 0 < hertz < math.inf or int(hertz) != hertz:
        raise ValueError(f"{name} must be a positive whole number of Hz, got {rate!r}")
    return int(hertz)


def resample(
    y: ArrayLike,
    *,
    orig_sr: float,
    target_sr: float,
    res_type: str = "soxr_hq",
    fix: bool = True,
    scale: bool = False,
) -> jax.Array:
    """Change the sample rate, equal to `librosa.resample`.

    Measured differences from librosa, relative to the peak: for soxr_hq at most 1e-6 on white noise and 4e-6
    on real clips; for polyphase 1e-6; for soxr_mq and soxr_lq 2e-5.

    Args:
      y: waveform `(..., N)`, floating.
      orig_sr: sample rate of `y` in Hz, a whole number.
      target_sr: new sample rate in Hz, a whole number.
      res_type: soxr_vhq, soxr_hq, soxr_mq or soxr_lq for libsoxr's linear-phase filters,
        polyphase for the filter of `scipy.signal.resample_poly`.
      fix: pad or cut to `ceil(N * target_sr / orig_sr)` samples; libsoxr itself rounds.
      scale: keep the energy rather than the level: divide by `sqrt(target_sr / orig_sr)`.

    Returns:
      float32 `(..., ceil(N * target_sr / orig_sr))`; with a libsoxr filter and `fix=False`, the rounded
      number of samples.

    Raises:
      ValueError: empty or integer `y`, rates that are not positive whole numbers or more than a factor
        of 128 apart, an unknown `res_type`, a clip so short that no sample is left.

    >>> resample(np.ones((2, 4410), np.float32), orig_sr=44100, target_sr=16000).shape
    (2, 1600)
    """
    given, y = y, signal.as_waveform(y)
    orig_sr, target_sr = _whole("orig_sr", orig_sr), _whole("target_sr", target_sr)
    signal.check_choice("res_type", res_type, (*HALF_WIDTH, "polyphase"))
    low, high = sorted((orig_sr, target_sr))
    if high > GREATEST_FACTOR * low:
        raise ValueError(
            f"orig_sr={orig_sr} and target_sr={target_sr} are more than a factor of {GREATEST_FACTOR} apart:"
            f" resample in steps, first to {low * round(math.sqrt(high / low))} Hz"
        )
    if orig_sr == target_sr:
        return y if y is given else jnp.array(y)  # which else could share the memory of a NumPy array
    common = math.gcd(orig_sr, target_sr)
    up, down = target_sr // common, orig_sr // common
    n = y.shape[-1]
    whole = signal.flag("fix", fix) or res_type == "polyphase"
    length = -(-n * up // down) if whole else rounded_length(n, up, down)
    if length == 0:
        raise ValueError(f"y has {n} samples, too few for a single one at {target_sr} Hz: give a longer y")
    gain = math.sqrt(down / up) if signal.flag("scale", scale) else 1.0
    return _resample(y, up=up, down=down, res_type=res_type, length=length, gain=gain)

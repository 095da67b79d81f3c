"""Continuous and discrete wavelet transforms, with the coefficients of PyWavelets.

PyWavelets' continuous transform integrates the sampled wavelet, stretches the integral to each
scale by repeating or skipping samples, convolves it with the signal and takes differences. Here the
same filters are made once, on the host, with the difference already taken; the device multiplies spectra.

The coefficients are those that PyWavelets gives for float64 input. (For float32 input it also
rounds the wavelet's time axis to float32, which stretches the filters. Long filters of the 'gaus',
'cgau', 'shan' and 'fbsp' families then differ by tens of per cent.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pywt
import scipy.fft
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise, clipwise

# PyWavelets' extension modes and their names in numpy.pad.
DWT_MODES: dict[str, Any] = {
    "symmetric": "symmetric",
    "zero": "constant",
    "constant": "edge",
    "periodic": "wrap",
    "reflect": "reflect",
    "periodization": "wrap",
}


@functools.lru_cache(maxsize=32)
def scale_filters(
    scales: tuple[float, ...], wavelet: str, precision: int
) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """Return, for each scale, its filter and the index where 'same' output begins.

    Raises:
      ValueError: a scale so small that its filter has no length.
    """
    integral, x = pywt.integrate_wavelet(_continuous(wavelet), precision=precision)
    integral = np.conj(integral)
    filters, starts = [], []
    for scale in scales:
        picked = np.arange(scale * (x[-1] - x[0]) + 1) / (scale * (x[1] - x[0]))
        picked = picked.astype(int)
        stretched = integral[picked[picked < len(integral)]][::-1]
        if len(stretched) < 2:
            raise ValueError(f"scale {scale:g} is too small for {wavelet!r}: use a larger one")
        edges = np.zeros(1, stretched.dtype)
        filters.append(-math.sqrt(scale) * np.diff(np.concatenate([edges, stretched, edges])))
        starts.append(1 + math.floor((len(stretched) - 2) / 2))
    return tuple(filters), tuple(starts)


def _continuous(wavelet: str) -> pywt.ContinuousWavelet:
    try:
        if not isinstance(wavelet, str):
            raise ValueError("not a name")
        return pywt.ContinuousWavelet(wavelet)
    except ValueError as error:
        names = ", ".join(pywt.wavelist(kind="continuous"))
        raise ValueError(f"unknown wavelet {wavelet!r}: the continuous ones are {names}") from error


@functools.partial(jax.jit, static_argnames=("scales", "wavelet", "precision"))
def _cwt(y: jax.Array, scales: tuple[float, ...], wavelet: str, precision: int) -> jax.Array:
    filters, starts = scale_filters(scales, wavelet, precision)
    samples = y.shape[-1]
    longest = max(len(taps) for taps in filters)
    n_fft = scipy.fft.next_fast_len(samples + longest - 1, real=True)
    is_complex = np.iscomplexobj(filters[0])
    transform, inverse = (jnp.fft.fft, jnp.fft.ifft) if is_complex else (jnp.fft.rfft, jnp.fft.irfft)
    # Filters are shifted so that every scale's output begins at the same index.
    table = np.zeros((len(scales), longest), np.complex64 if is_complex else np.float32)
    begin = max(starts)
    for row, taps, start in zip(table, filters, starts, strict=True):
        row[begin - start : begin - start + len(taps)] = taps

    def all_scales(clips: jax.Array) -> jax.Array:
        spectrum = transform(clips.astype(table.dtype), n=n_fft)

        def one_scale(taps: jax.Array) -> jax.Array:
            response = transform(taps, n=n_fft)[None]
            return inverse(spectrum * response, n=n_fft)[..., begin : begin + samples]

        return jnp.moveaxis(jax.lax.map(one_scale, jnp.asarray(table)), 0, -2)

    return batchwise(all_scales, y)


def _checked_scales(scales: Any) -> tuple[float, ...]:
    """Return scales, hashable; ValueError unless they are a number or a sequence of numbers that can work."""
    given = scales if np.iterable(scales) and not isinstance(scales, str | bytes | dict) else [scales]
    checked = tuple(signal.number("each of scales", scale) for scale in given)
    if not checked or not all(0 < scale < math.inf for scale in checked):
        raise ValueError(f"scales must be positive, finite numbers, at least one, got {checked}")
    return checked


def cwt(y: ArrayLike, scales: Sequence[float], wavelet: str, *, precision: int = 12) -> jax.Array:
    """Continuous wavelet transform: the coefficients of `pywt.cwt`, without its frequencies.

    A scale s shows the frequency `pywt.scale2frequency(wavelet, s) * sr` Hz.

    Args:
      y: waveform `(..., N)`, floating.
      scales: positive numbers, in samples.
      wavelet: a continuous wavelet of PyWavelets: 'morl', 'mexh', 'gaus1'..'gaus8' (real) or
        'cmor1.5-1.0', 'cgau1'..'cgau8', 'shan1.5-1.0', 'fbsp2-1.5-1.0' (complex).
      precision: the wavelet is sampled at `2 ** precision` points.

    Returns:
      `(..., len(scales), N)`, float32 for real wavelets and complex64 for complex ones.

    Raises:
      ValueError: empty or integer `y`, no scales, a scale not positive or too small, an unknown
        wavelet.

    >>> tone = np.sin(np.arange(4000, dtype=np.float32) / 10)
    >>> power = np.square(np.abs(cwt(tone, [8.0, 62.8, 400.0], "cmor1.5-1.0")))
    >>> int(power[:, 2000].argmax())
    1
    """
    scales = _checked_scales(scales)
    signal.check_positive(precision=precision)
    _continuous(wavelet)
    y = signal.as_waveform(y)
    scale_filters(scales, wavelet, precision)
    return _cwt(y, scales=scales, wavelet=wavelet, precision=int(precision))


def _extended(y: jax.Array, taps: int, mode: str) -> jax.Array:
    """Extend `y` so that output k of the transform ends at sample `2 k + 1` of the result."""
    before, after = taps - 2, taps - 1
    if mode == "periodization":
        before = after = taps // 2 - 1
        if y.shape[-1] % 2:
            y = jnp.concatenate([y, y[..., -1:]], axis=-1)
    if mode == "zero":
        return jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(before, after)])
    # Only the ends are gathered: jax.numpy.pad of a short signal takes seconds to compile.
    samples = y.shape[-1]
    index = np.pad(np.arange(samples), (before, after), mode=DWT_MODES[mode])
    ends = y[..., index[:before]], y[..., index[before + samples :]]
    return jnp.concatenate([ends[0], y, ends[1]], axis=-1)


def dwt_length(samples: int, taps: int, mode: str) -> int:
    """Return the number of coefficients that one level gives."""
    return (samples + 1) // 2 if mode == "periodization" else (samples + taps - 1) // 2


def _one_level(y: jax.Array, wavelet: str, mode: str) -> tuple[jax.Array, jax.Array]:
    low, high = (np.asarray(taps) for taps in pywt.Wavelet(wavelet).filter_bank[:2])
    length = dwt_length(y.shape[-1], len(low), mode)
    y = _extended(y, len(low), mode)
    pairs = length + (len(low) + 1) // 2
    y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, max(0, 2 * pairs - y.shape[-1]))])
    phases = jnp.moveaxis(y[..., : 2 * pairs].reshape(*y.shape[:-1], pairs, 2), -1, 0)
    outputs = []
    for taps in (low, high):
        terms = (
            jnp.float32(tap) * phases[i % 2][..., i // 2 : i // 2 + length]
            for i, tap in enumerate(taps[::-1])
            if tap
        )
        outputs.append(functools.reduce(jnp.add, terms))
    return outputs[0], outputs[1]


@functools.partial(jax.jit, static_argnames=("wavelet", "level", "mode"))
def _wavedec(y: jax.Array, wavelet: str, level: int, mode: str) -> list[jax.Array]:
    def decomposition(approximation: jax.Array) -> list[jax.Array]:
        details = []
        for _ in range(level):
            approximation, detail = _one_level(approximation, wavelet, mode)
            details.append(detail)
        return [approximation, *reversed(details)]

    return clipwise(decomposition, y)


def _check_discrete(wavelet: str, mode: str) -> int:
    """Return the number of taps of a discrete wavelet, or raise ValueError."""
    if wavelet not in pywt.wavelist(kind="discrete"):
        families = ", ".join(family for family in pywt.families() if _is_discrete(family))
        raise ValueError(
            f"unknown wavelet {wavelet!r}: use a discrete one, such as 'db4', from the families {families}"
        )
    signal.check_choice("mode", mode, DWT_MODES)
    return pywt.Wavelet(wavelet).dec_len


def _is_discrete(family: str) -> bool:
    return bool(set(pywt.wavelist(family)) & set(pywt.wavelist(kind="discrete")))


def _check_reflected(samples: int, taps: int, level: int, mode: str) -> None:
    """Raise ValueError if a level would have to reflect a single sample, which PyWavelets refuses too."""
    for number in range(1, level + 1 if mode == "reflect" else 1):
        if samples == 1:
            raise ValueError(
                f"mode='reflect' needs two samples or more, but level {number} has only one to split:"
                " use another mode, fewer levels or a longer y"
            )
        samples = dwt_length(samples, taps, mode)


def dwt(y: ArrayLike, wavelet: str, mode: str = "symmetric") -> tuple[jax.Array, jax.Array]:
    """One level of the discrete wavelet transform, equal to `pywt.dwt`.

    Args:
      y: waveform `(..., N)`, floating.
      wavelet: a discrete wavelet of PyWavelets, such as 'db4', 'sym5', 'coif1', 'bior2.2'.
      mode: how the ends are extended: 'symmetric', 'zero', 'constant', 'periodic', 'reflect' or
        'periodization', as in PyWavelets.

    Returns:
      approximation and detail, each float32 `(..., M)`. M is `ceil(N / 2)` for 'periodization',
      otherwise `(N + taps - 1) // 2`.

    Raises:
      ValueError: empty or integer `y`, an unknown wavelet or mode, a single sample with 'reflect'.

    >>> approximation, detail = dwt(np.float32([1, 1, 3, 5]), "haar")
    >>> (approximation * 2**0.5).round(3).tolist(), (detail * 2**0.5).round(3).tolist()
    ([2.0, 8.0], [0.0, -2.0])
    """
    approximation, detail = wavedec(y, wavelet, level=1, mode=mode)
    return approximation, detail


def wavedec(y: ArrayLike, wavelet: str, mode: str = "symmetric", level: int | None = None) -> list[jax.Array]:
    """Discrete wavelet decomposition, equal to `pywt.wavedec`.

    Args:
      y: waveform `(..., N)`, floating.
      wavelet: see `dwt`.
      mode: see `dwt`.
      level: number of levels, that is, how often the approximation is split; default `pywt.dwt_max_level`.

    Returns:
      `[approximation, coarsest detail, ..., finest detail]`, float32 `(..., M_i)` each.

    Raises:
      ValueError: as `dwt`, at any level; a level that is negative or not whole.

    >>> [part.shape for part in wavedec(np.ones((2, 100), np.float32), "db2", level=2)]
    [(2, 27), (2, 27), (2, 51)]
    """
    taps = _check_discrete(wavelet, mode)
    y = signal.as_waveform(y)
    if level is None:
        level = pywt.dwt_max_level(y.shape[-1], taps)
    if not signal.is_whole(level) or level < 0:
        raise ValueError(f"level={level!r} must be a whole number of at least 0")
    _check_reflected(y.shape[-1], taps, int(level), mode)
    return _wavedec(y, wavelet=wavelet, level=int(level), mode=mode)

"""Constant-Q and variable-Q transforms, complex, equal to librosa's.

The transform is multirate (Schoerkhuber and Klapuri, "Constant-Q transform toolbox for music
processing", SMC 2010): the top octave is filtered at the full rate; for each octave below, the
signal is decimated by two and the hop halves, so that every octave has the same number of frames.
What depends on the arguments alone, the filters above all, is made once on the host.
"""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import scipy.fft

from rann_jax.features import signal
from rann_jax.features.resample import HALF_WIDTH, soxr_resample

# An octave is decimated only where its highest centre frequency is at most this part of the rate, 80%
# of the new Nyquist frequency, so that it lies in the decimator's passband. That is librosa 1.0's
# rule; 0.11 always decimates, and so attenuates the second octave if the top bin is above 0.4 sr.
DECIMATED_BELOW = 0.2


def check_tuning(tuning: float | None) -> float:
    """Return `tuning`, or raise ValueError if it is None: estimated tuning depends on the data."""
    if tuning is None:
        raise ValueError(
            "tuning=None would be estimated from the data, which no compiled transform can do:"
            " give tuning=0.0, or the result of librosa.estimate_tuning"
        )
    return float(tuning)


class Octave(NamedTuple):
    """Filters of one octave, and how its signal comes from that of the octave above."""

    decimate: bool  # halve the rate of the signal first
    hop_length: int
    kernel: np.ndarray  # (2 * bins, n_fft) float32: real parts of all bins, then imaginary parts


class Plan(NamedTuple):
    """All of a transform that does not depend on the signal."""

    early_factor: int  # decimation before the first octave
    octaves: tuple[Octave, ...]  # from the highest to the lowest


def relative_bandwidth(freqs: np.ndarray, bins_per_octave: int) -> np.ndarray:
    """Return each filter's bandwidth over its centre frequency, from where its neighbours are."""
    spacing = np.gradient(np.log2(freqs)) if len(freqs) > 1 else np.array([1 / bins_per_octave])
    ratio = 2.0 ** (2 * spacing)
    return (ratio - 1) / (ratio + 1)


def _kernel(
    freqs: np.ndarray,
    sr: float,
    norm: float | None,
    sparsity: float,
    **shape: Any,
) -> np.ndarray:
    """Return the filters as `(bins, n_fft)` complex: response = kernel @ frame.

    librosa filters in the frequency domain and drops the weakest part of each spectrum, `sparsity`
    of its sum. Here the same spectrum is brought back to the time domain, where one real matrix
    product replaces the FFT of every frame.
    """
    basis, lengths = librosa.filters.wavelet(freqs=freqs, sr=sr, norm=norm, **shape)
    n_fft = basis.shape[1]
    # complex64 as in librosa: which of the weak parts are dropped depends on the rounding.
    basis *= (lengths[:, np.newaxis] / n_fft).astype(np.float32)
    spectra = scipy.fft.fft(basis, axis=1)[:, : n_fft // 2 + 1]
    spectra = librosa.util.sparsify_rows(spectra, quantile=sparsity, dtype=np.complex64)
    return np.fft.fft(spectra.toarray().astype(np.complex128), n=n_fft, axis=1)


def _early_factor(sr: float, cutoff: float, hop_length: int, n_octaves: int) -> int:
    """Return the power of two by which librosa decimates before the first octave."""
    by_rate = math.ceil(math.log2(sr / 2 / cutoff)) - 2
    halvings = (hop_length & -hop_length).bit_length() - 1
    return 2 ** max(0, min(by_rate, halvings - n_octaves + 1))


def _check_hop(hop_length: int, halvings: int, n_bins: int) -> None:
    step = 2**halvings
    if hop_length % step:
        nearest = max(step, round(hop_length / step) * step)
        raise ValueError(
            f"hop_length={hop_length} must be a multiple of {step}: the octaves of n_bins={n_bins}"
            f" halve it {halvings} times; use hop_length={nearest}, or fewer bins"
        )


@functools.lru_cache(maxsize=32)
def _plan(
    sr: float,
    hop_length: int,
    fmin: float,
    n_bins: int,
    intervals: str | tuple[float, ...],
    gamma: float | None,
    bins_per_octave: int,
    filter_scale: float,
    norm: float | None,
    sparsity: float,
    window: Any,
    scale: bool,
) -> Plan:
    freqs = librosa.interval_frequencies(
        n_bins, fmin=fmin, intervals=intervals, bins_per_octave=bins_per_octave, sort=True
    )
    alpha = relative_bandwidth(freqs, bins_per_octave)
    shape = {"window": window, "filter_scale": filter_scale, "gamma": gamma}
    lengths, cutoff = librosa.filters.wavelet_lengths(freqs=freqs, sr=sr, alpha=alpha, **shape)
    if cutoff > sr / 2:
        raise ValueError(
            f"n_bins={n_bins} from fmin={fmin:g} Hz reach {cutoff:g} Hz, above Nyquist,"
            f" {sr / 2:g} Hz at sr={sr:g}: use fewer bins or a lower fmin"
        )
    n_octaves = math.ceil(n_bins / bins_per_octave)
    early = _early_factor(sr, cutoff, hop_length, n_octaves)
    lengths = lengths / early
    # Decimation keeps the energy, not the level; scale=False undoes it for the early one too.
    gain = math.sqrt(early) * (1.0 if scale else math.sqrt(early))
    octaves, halvings = [], 0
    for top in range(n_bins, 0, -bins_per_octave):
        bins = slice(max(0, top - bins_per_octave), top)
        my_sr = sr / early / 2**halvings
        decimate = top < n_bins and freqs[top - 1] <= DECIMATED_BELOW * my_sr
        if decimate:
            halvings, my_sr = halvings + 1, my_sr / 2
        kernel = _kernel(freqs[bins], my_sr, norm, sparsity, alpha=alpha[bins], **shape)
        # One factor for the energy lost by decimation, one for the filters shortened by it.
        kernel = kernel * gain * 2.0**halvings
        if scale:
            kernel = kernel / np.sqrt(lengths[bins, np.newaxis])
        kernel = np.concatenate([kernel.real, kernel.imag]).astype(np.float32)
        octaves.append(Octave(decimate, hop_length // early >> halvings, kernel))
    _check_hop(hop_length, halvings + early.bit_length() - 1, n_bins)
    return Plan(early, tuple(octaves))


def _check_length(n: int, plan: Plan, pad_mode: str) -> None:
    if n < plan.early_factor:
        raise ValueError(
            f"y has {n} samples, fewer than the {plan.early_factor} that decimation makes one of:"
            " give a longer clip or a higher fmin"
        )
    lowest = plan.octaves[-1]
    n_left = n * lowest.hop_length // plan.octaves[0].hop_length // plan.early_factor
    if pad_mode == "reflect" and n_left <= lowest.kernel.shape[1] // 2:
        raise ValueError(
            f"y has {n} samples, too few to reflect for the lowest filters:"
            " use pad_mode='constant', a longer clip or a higher fmin"
        )


PLAN = tuple(inspect.signature(_plan).parameters)


def _responses(y: jax.Array, octave: Octave, n_frames: int, pad_mode: str) -> jax.Array:
    """Filter `(..., N)` with one octave; complex `(..., bins, n_frames)`."""
    two_bins, n_fft = octave.kernel.shape
    y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(n_fft // 2, n_fft // 2)], mode=pad_mode)
    frames = signal.frame(y[..., : n_fft + (n_frames - 1) * octave.hop_length], n_fft, octave.hop_length)
    parts = jnp.matmul(frames, octave.kernel.T, precision=jax.lax.Precision.HIGHEST)
    parts = jnp.swapaxes(parts, -1, -2)
    return jax.lax.complex(parts[..., : two_bins // 2, :], parts[..., two_bins // 2 :, :])


@functools.partial(jax.jit, static_argnames=(*PLAN, "pad_mode", "res_type"))
def _vqt(y: jax.Array, *, pad_mode: str, res_type: str, **arguments: Any) -> jax.Array:
    plan = _plan(**arguments)
    if plan.early_factor > 1:
        n = -(-y.shape[-1] // plan.early_factor)
        y = soxr_resample(y, 1, plan.early_factor, res_type)
        # libsoxr rounds the number of samples, the transform counts a started one.
        y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, n - y.shape[-1])])
    signals = []
    for octave in plan.octaves:
        if octave.decimate:
            y = soxr_resample(y, 1, 2, res_type)
        signals.append(y)
    n_frames = min(
        1 + y.shape[-1] // octave.hop_length for y, octave in zip(signals, plan.octaves, strict=True)
    )
    stack = [
        _responses(y, octave, n_frames, pad_mode) for y, octave in zip(signals, plan.octaves, strict=True)
    ]
    return jnp.concatenate(stack[::-1], axis=-2)


def vqt(
    y: Any,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    n_bins: int = 84,
    intervals: str | Sequence[float] = "equal",
    gamma: float | None = None,
    bins_per_octave: int = 12,
    tuning: float | None = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1,
    sparsity: float = 0.01,
    window: signal.WindowSpec = "hann",
    scale: bool = True,
    pad_mode: str = "constant",
    res_type: str = "soxr_hq",
) -> jax.Array:
    """Variable-Q transform, equal to `librosa.vqt`.

    Args:
        y: waveform `(..., N)`, floating.
        sr: sample rate in Hz.
        hop_length: samples between frames; every octave below the first halves it. (For 2**k frames
            a second, at any rate: resample to 2**(k + j) Hz and give `hop_length=2**j`.)
        fmin: lowest centre frequency in Hz; default C1, 32.7 Hz.
        n_bins: number of bins.
        intervals: 'equal', 'pythagorean', 'ji3', 'ji5', 'ji7', or the ratios of one octave.
        gamma: bandwidth added to each filter, in Hz; None for that of the ear, 0 for constant Q.
        bins_per_octave: bins per octave; the number of `intervals` where these are ratios.
        tuning: deviation of the tuning in bins.
        filter_scale: factor of the filters' lengths.
        norm: norm of the filters.
        sparsity: part of each filter's spectrum that is dropped, in [0, 1).
        window: window of the filters.
        scale: divide by the square root of the filters' lengths.
        pad_mode: how the ends are extended.
        res_type: decimator; one of libsoxr's, see `resample`.

    Returns:
        complex64 `(..., n_bins, T)`, T = 1 + N // hop_length.

    Raises:
        ValueError: empty or integer `y`, `tuning=None`, bins
            above Nyquist, a `hop_length` that cannot be halved as often as needed.

    >>> vqt(np.ones((2, 22050), np.float32), n_bins=24).shape
    (2, 24, 44)
    """
    deviation = check_tuning(tuning)
    y = signal.as_waveform(y)
    if not isinstance(intervals, str):
        intervals = tuple(float(ratio) for ratio in intervals)
        bins_per_octave = len(intervals)
    signal.check_positive(hop_length=hop_length, n_bins=n_bins, bins_per_octave=bins_per_octave)
    signal.check_pad_mode(pad_mode)
    if res_type not in HALF_WIDTH:
        raise ValueError(f"res_type={res_type!r} is not supported: use one of {tuple(HALF_WIDTH)}")
    lowest = float(librosa.note_to_hz("C1")) if fmin is None else float(fmin)
    for name, value in (("sr", sr), ("fmin", lowest), ("filter_scale", filter_scale)):
        if value <= 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    arguments = {
        "sr": float(sr),
        "hop_length": int(hop_length),
        "fmin": lowest * 2.0 ** (deviation / bins_per_octave),
        "n_bins": int(n_bins),
        "intervals": intervals,
        "gamma": gamma,
        "bins_per_octave": int(bins_per_octave),
        "filter_scale": float(filter_scale),
        "norm": norm,
        "sparsity": float(sparsity),
        "window": signal.hashable_window(window),
        "scale": bool(scale),
    }
    plan = _plan(**arguments)
    _check_length(y.shape[-1], plan, pad_mode)
    return _vqt(y, pad_mode=pad_mode, res_type=res_type, **arguments)


def cqt(
    y: Any,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    fmin: float | None = None,
    n_bins: int = 84,
    bins_per_octave: int = 12,
    tuning: float | None = 0.0,
    filter_scale: float = 1.0,
    norm: float | None = 1,
    sparsity: float = 0.01,
    window: signal.WindowSpec = "hann",
    scale: bool = True,
    pad_mode: str = "constant",
    res_type: str = "soxr_hq",
) -> jax.Array:
    """Constant-Q transform, equal to `librosa.cqt`: `vqt` with `gamma=0` and equal intervals.

    The arguments, the complex64 result `(..., n_bins, T)` and the errors are those of `vqt`. Bin k
    is centred at `fmin * 2 ** (k / bins_per_octave)` Hz: 440 Hz, A4, is 45 semitones above C1.

    >>> y = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    >>> np.abs(cqt(y)).mean(axis=-1).argmax().item()
    45
    """
    return vqt(
        y,
        sr=sr,
        hop_length=hop_length,
        fmin=fmin,
        n_bins=n_bins,
        gamma=0.0,
        bins_per_octave=bins_per_octave,
        tuning=tuning,
        filter_scale=filter_scale,
        norm=norm,
        sparsity=sparsity,
        window=window,
        scale=scale,
        pad_mode=pad_mode,
        res_type=res_type,
    )

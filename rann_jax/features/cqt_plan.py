"""The part of a constant-Q transform that does not depend on the signal: rates, hops and filters."""

import functools
import math
from typing import Any, NamedTuple

import librosa
import numpy as np
import scipy.fft

from rann_jax.features import signal

# The signal is decimated for an octave only if the octave's highest centre frequency is at most this fraction
# of the sample rate. That is 80% of the new Nyquist frequency, within the decimator's passband. It is librosa
# 1.0's rule; 0.11 always decimates, and so attenuates the second octave if the top bin is above 0.4 sr.
DECIMATED_BELOW = 0.2


def check_tuning(tuning: float | None) -> float:
    """Return `tuning` as a float; ValueError if it is None, or not finite."""
    if tuning is None:
        raise ValueError(
            "tuning=None would have to be estimated from the data, but a compiled transform cannot:"
            " give tuning=0.0, or the result of librosa.estimate_tuning"
        )
    deviation = signal.number("tuning", tuning)
    if not math.isfinite(deviation):
        raise ValueError(f"tuning={tuning} must be finite, in bins")
    return deviation


class Octave(NamedTuple):
    """Filters of one octave, and how its signal is made from that of the octave above."""

    decimate: bool  # halve the rate of the signal first
    hop_length: int
    kernel: np.ndarray  # (2 * bins, n_fft) float32: real parts of all bins, then imaginary parts


class Plan(NamedTuple):
    """Everything about a transform that does not depend on the signal."""

    early_factor: int  # decimation before the first octave
    octaves: tuple[Octave, ...]  # from the highest to the lowest


class Design(NamedTuple):
    """What the filters of a transform are made from: checked settings, hashable as one key of a cache.

    Attributes:
      sr: sample rate in Hz.
      hop_length: samples between frames.
      fmin: lowest centre frequency in Hz, with the deviation of the tuning.
      n_bins: number of bins.
      intervals: name of the intervals, or the ratios of one octave, in [1, 2).
      gamma: bandwidth added to each filter in Hz; None for the ear's bandwidth.
      bins_per_octave: bins per octave.
      filter_scale: factor by which the filters are lengthened.
      norm: norm of the filters.
      sparsity: fraction of each filter's spectrum that is dropped.
      window: hashable, as scipy.signal.get_window takes it, or a function of the length.
      scale: whether to divide by the square root of the filters' lengths.
    """

    sr: float
    hop_length: int
    fmin: float
    n_bins: int
    intervals: str | tuple[float, ...]
    gamma: float | None
    bins_per_octave: int
    filter_scale: float
    norm: float | None
    sparsity: float
    window: Any
    scale: bool

    @property
    def freqs(self) -> np.ndarray:
        """The centre frequencies in Hz, `(n_bins,)` float64, rising."""
        return librosa.interval_frequencies(
            self.n_bins,
            fmin=self.fmin,
            intervals=self.intervals,
            bins_per_octave=self.bins_per_octave,
            sort=True,
        )

    def shape(self, alpha: np.ndarray) -> dict[str, Any]:
        """Return what librosa shapes filters by, given the relative bandwidth `alpha` of each."""
        return {
            "alpha": alpha,
            "window": self.window,
            "filter_scale": self.filter_scale,
            "gamma": self.gamma,
        }


def relative_bandwidth(freqs: np.ndarray, bins_per_octave: int) -> np.ndarray:
    """Return each filter's bandwidth divided by its centre frequency, from the spacing of its neighbours."""
    spacing = np.gradient(np.log2(freqs)) if len(freqs) > 1 else np.array([1 / bins_per_octave])
    ratio = 2.0 ** (2 * spacing)
    return (ratio - 1) / (ratio + 1)


def _kernel(design: Design, freqs: np.ndarray, sr: float, alpha: np.ndarray) -> np.ndarray:
    """Return the filters at `freqs` Hz as `(bins, n_fft)` complex: response = kernel @ frame.

    librosa filters in the frequency domain and drops the weakest bins of each spectrum, up to the fraction
    `sparsity` of its sum. Here the same spectrum is transformed back to the time domain, where one real
    matrix product replaces the FFT of every frame.
    """
    basis, lengths = librosa.filters.wavelet(freqs=freqs, sr=sr, norm=design.norm, **design.shape(alpha))
    n_fft = basis.shape[1]
    # complex64 as in librosa: which of the weak bins are dropped depends on the rounding.
    basis *= (lengths[:, np.newaxis] / n_fft).astype(np.float32)
    spectra = scipy.fft.fft(basis, axis=1)[:, : n_fft // 2 + 1]
    spectra = librosa.util.sparsify_rows(spectra, quantile=design.sparsity, dtype=np.complex64)
    return np.fft.fft(spectra.toarray().astype(np.complex128), n=n_fft, axis=1)


def early_decimation(sr: float, cutoff: float, hop_length: int, n_octaves: int) -> int:
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


def _octaves(freqs: np.ndarray, sr: float, bins_per_octave: int) -> list[tuple[slice, bool]]:
    """Return the bins of each octave, highest octave first, and whether its signal is decimated first."""
    octaves, rate = [], sr
    for top in range(len(freqs), 0, -bins_per_octave):
        decimate = bool(top < len(freqs) and freqs[top - 1] <= DECIMATED_BELOW * rate)
        rate = rate / 2 if decimate else rate
        octaves.append((slice(max(0, top - bins_per_octave), top), decimate))
    return octaves


@functools.lru_cache(maxsize=32)
def make_plan(design: Design) -> Plan:
    """Return the plan of a transform, or raise ValueError if its settings do not allow one."""
    sr, hop_length, freqs = design.sr, design.hop_length, design.freqs
    n_bins, bins_per_octave = design.n_bins, design.bins_per_octave
    alpha = relative_bandwidth(freqs, bins_per_octave)
    lengths, cutoff = librosa.filters.wavelet_lengths(freqs=freqs, sr=sr, **design.shape(alpha))
    if cutoff > sr / 2:
        raise ValueError(
            f"n_bins={n_bins} from fmin={design.fmin:g} Hz reach {cutoff:g} Hz, above Nyquist,"
            f" {sr / 2:g} Hz at sr={sr:g}: use fewer bins or a lower fmin"
        )
    early = early_decimation(sr, cutoff, hop_length, math.ceil(n_bins / bins_per_octave))
    spans = _octaves(freqs, sr / early, bins_per_octave)
    halvings = early.bit_length() - 1 + sum(decimate for _, decimate in spans)
    _check_hop(hop_length, halvings, n_bins)
    lengths = lengths / early
    # librosa's early decimation multiplies by sqrt(early) to keep the energy, and with scale=False once more.
    gain = math.sqrt(early) * (1.0 if design.scale else math.sqrt(early))
    octaves, halved = [], 0
    for bins, decimate in spans:
        halved += decimate
        kernel = _kernel(design, freqs[bins], sr / early / 2**halved, alpha[bins])
        # A factor sqrt(2) per halving for the energy lost, and another for the shortened filters.
        kernel = kernel * gain * 2.0**halved
        if design.scale:
            kernel = kernel / np.sqrt(lengths[bins, np.newaxis])
        kernel = np.concatenate([kernel.real, kernel.imag]).astype(np.float32)
        octaves.append(Octave(decimate, hop_length // early >> halved, kernel))
    return Plan(early, tuple(octaves))


def check_length(n: int, plan: Plan, pad_mode: str) -> None:
    """Raise ValueError if `n` samples are too few for the planned decimation and padding."""
    if n < plan.early_factor:
        raise ValueError(
            f"y has {n} samples, fewer than the {plan.early_factor} that decimation turns into one:"
            " give a longer clip or a higher fmin"
        )
    lowest = plan.octaves[-1]
    n_left = n * lowest.hop_length // plan.octaves[0].hop_length // plan.early_factor
    if pad_mode == "reflect" and n_left <= lowest.kernel.shape[1] // 2:
        raise ValueError(
            f"y has {n} samples, too few to reflect for the lowest filters:"
            " use pad_mode='constant', a longer clip or a higher fmin"
        )

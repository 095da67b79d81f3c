"""The front end of the constant-Q transform."""

import dataclasses
import math
from fractions import Fraction
from typing import ClassVar

import jax

from rann_jax.features import signal
from rann_jax.features.band import C1, upper_edge
from rann_jax.features.cqt import cqt
from rann_jax.features.decibels import amplitude_to_db
from rann_jax.features.front_ends.base import ImageFrontEnd
from rann_jax.features.resample import GREATEST_FACTOR, resample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cqt(ImageFrontEnd):
    """Constant-Q transform in dB: `amplitude_to_db(|cqt(y)|)` (range, resolution and rate are ours).

    The transform halves its hop at each lower octave, so its hop must be a multiple of a power of two. The
    waveform is resampled to the lowest rate that is high enough for the highest bin and at which
    `frames_per_second` gives such a hop. Frame t is therefore exactly at second `t / frames_per_second`;
    nothing is interpolated.

    Attributes:
      fmin: lowest centre frequency in Hz.
      bins_per_octave: None for the smallest number that keeps the highest bin below 14000 Hz and 0.8
        times Nyquist.
    """

    name: ClassVar[str] = "cqt"

    fmin: float = C1
    bins_per_octave: int | None = None

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        bins_per_octave = self._fewest_bins() if self.bins_per_octave is None else self.bins_per_octave
        signal.check_positive(bins_per_octave=bins_per_octave)
        if not self.fmin > 0:
            raise ValueError(f"fmin={self.fmin:g} Hz must be positive")
        highest = self.fmin * 2 ** ((self.n_bins - 1) / bins_per_octave)
        # Resampling keeps frequencies below 0.45 times the lower rate.
        if not highest <= 0.45 * self.sample_rate:
            raise ValueError(
                f"n_bins={self.n_bins}, bins_per_octave={bins_per_octave} and fmin={self.fmin:g} Hz reach"
                f" {highest:g} Hz, above 0.9 times Nyquist, {0.45 * self.sample_rate:g} Hz: use fewer bins"
            )
        octaves = -(-self.n_bins // bins_per_octave)
        lowest = max(highest / 0.45, self.sample_rate / GREATEST_FACTOR)
        rate, hop_length = self._rate_and_hop(multiple=2 ** (octaves - 1), lowest=lowest)
        transform = cqt(
            # scale=True keeps the energy: levels are the same as at the waveform's own rate.
            resample(y, orig_sr=self.sample_rate, target_sr=rate, scale=True),
            sr=rate,
            hop_length=hop_length,
            fmin=self.fmin,
            n_bins=self.n_bins,
            bins_per_octave=bins_per_octave,
        )
        return amplitude_to_db(transform, top_db=None)

    def _fewest_bins(self) -> int:
        """Return the smallest number of bins per octave that puts all bins below the default upper edge."""
        top = upper_edge(self.sample_rate, share=0.8)
        if not 0 < self.fmin < top:
            raise ValueError(f"fmin={self.fmin:g} Hz must be above 0 and below {top:g} Hz")
        return max(1, math.ceil(self.n_bins / math.log2(top / self.fmin)))

    def _rate_and_hop(self, multiple: int, lowest: float) -> tuple[int, int]:
        """Return the lowest whole rate in Hz from `lowest` on with a hop divisible by `multiple`; the hop."""
        per_second = Fraction(self.frames_per_second).limit_denominator(10000)
        step = per_second * multiple
        step *= step.denominator
        rate = int(step * math.ceil(lowest / step))
        return rate, int(rate / per_second)

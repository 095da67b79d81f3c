"""The front end of the continuous wavelet transform."""

import dataclasses
from typing import ClassVar

import jax

from rann_jax.features.band import FMIN, upper_edge
from rann_jax.features.decibels import power_to_db
from rann_jax.features.front_ends.base import ImageFrontEnd
from rann_jax.features.scalogram import scalogram


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cwt(ImageFrontEnd):
    """Scalogram in dB: `power_to_db(scalogram(y))`, complex Morlet wavelet power over each hop (ours).

    Attributes:
      fmin: lowest centre frequency in Hz.
      fmax: highest centre frequency in Hz; None for the lower of 14000 Hz and 0.8 times Nyquist.
      wavelet: 'cmorB-C' with bandwidth B and centre C.
    """

    name: ClassVar[str] = "cwt"

    fmin: float = FMIN
    fmax: float | None = None
    wavelet: str = "cmor1.5-1.0"

    def features(self, y: jax.Array) -> jax.Array:
        """Return dB `(..., n_bins, T)`."""
        power = scalogram(
            y,
            sr=self.sample_rate,
            hop_length=self.hop_length,
            n_bins=self.n_bins,
            fmin=self.fmin,
            fmax=upper_edge(self.sample_rate, share=0.8) if self.fmax is None else self.fmax,
            wavelet=self.wavelet,
        )
        return power_to_db(power, top_db=None)

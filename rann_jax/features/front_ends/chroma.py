"""The front end of the chromagram."""

import dataclasses
import math
from typing import ClassVar

import jax

from rann_jax.features.chroma import chroma_stft
from rann_jax.features.front_ends.base import ImageFrontEnd


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chroma(ImageFrontEnd):
    """Chromagram of the STFT, `chroma_stft`: 12 rows, one per pitch class, or the octave in `n_bins` parts.

    Attributes:
      n_fft: FFT length; None for the power of two nearest to librosa's 2048 / 22050 seconds.
    """

    name: ClassVar[str] = "chroma"

    n_bins: int = 12
    n_fft: int | None = None

    def features(self, y: jax.Array) -> jax.Array:
        """Return chroma in 0..1, `(..., n_bins, T)`."""
        usual = 2 ** round(math.log2(2048 / 22050 * self.sample_rate))
        return chroma_stft(
            y,
            sr=self.sample_rate,
            n_fft=usual if self.n_fft is None else self.n_fft,
            hop_length=self.hop_length,
            n_chroma=self.n_bins,
        )

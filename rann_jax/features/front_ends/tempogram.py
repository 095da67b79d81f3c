"""The front end of the tempogram."""

import dataclasses
from typing import ClassVar

import jax

from rann_jax.features.front_ends.base import ImageFrontEnd
from rann_jax.features.tempogram import tempogram


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tempogram(ImageFrontEnd):
    """Autocorrelation tempogram: rows are lags of 0, 1, 2... frames (their number is ours).

    Attributes:
      win_length: frames in the autocorrelation window, at least `n_bins`; the default, 384, is librosa's.
    """

    name: ClassVar[str] = "tempogram"

    win_length: int = 384

    def features(self, y: jax.Array) -> jax.Array:
        """Return autocorrelation, at most 1, `(..., n_bins, T)`."""
        if self.win_length < self.n_bins:
            raise ValueError(
                f"win_length={self.win_length} frames are too few for {self.n_bins} lags:"
                f" use win_length={self.n_bins} or more, or fewer n_bins"
            )
        lags = tempogram(y, sr=self.sample_rate, hop_length=self.hop_length, win_length=self.win_length)
        return lags[..., : self.n_bins, :]

"""Front ends that hand the waveform on, for networks that learn an image from it (`models.Wavegram`)."""

import dataclasses
from typing import Any, ClassVar

import jax

from rann_jax.features.image import FrontEnd, Inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class AndWaveform(FrontEnd):
    """Mixed into a front end: the network takes the waveform beside the image."""

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"image": (..., n_bins, n_frames), "waveform": (..., n_samples)}`."""
        return {"image": self.image(y), "waveform": y}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wavegram(FrontEnd):
    """The waveform itself; the network learns an image `(n_bins, n_frames)` from it (`models.Wavegram`)."""

    name: ClassVar[str] = "wavegram"

    @property
    def network_options(self) -> dict[str, Any]:
        """The size of the image to learn."""
        return {"wavegram_shape": (self.n_bins, self.n_frames)}

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"waveform": (..., n_samples)}`."""
        return {"waveform": y}

"""Front ends that pass the waveform on to networks that learn an image from it (`models.Wavegram`)."""

import dataclasses
from typing import Any, ClassVar

import jax

from rann_jax.features.image import FrontEnd, Inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class AndWaveform(FrontEnd):
    """Mixin for a front end whose network takes the waveform as well as the image."""

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"image": (..., n_bins, n_frames), "waveform": (..., n_samples)}`."""
        return {"image": self.image(y), "waveform": y}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wavegram(FrontEnd):
    """The waveform itself; the network learns an image `(n_bins, n_frames)` from it (`models.Wavegram`)."""

    name: ClassVar[str] = "wavegram"

    @property
    def network_options(self) -> dict[str, Any]:
        """Network option with the size of the image to learn."""
        return {"wavegram_shape": (self.n_bins, self.n_frames)}

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"waveform": (..., n_samples)}`."""
        return {"waveform": y}

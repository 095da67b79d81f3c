"""Front ends that pass the waveform on to networks that learn an image from it (`models.Wavegram`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import jax
from numpy.typing import ArrayLike

from rann_jax.features.front_ends.base import FrontEnd, Inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveformFrontEnd(FrontEnd):
    """Base class of the front ends that return the waveform, alone or with an image."""

    def __call__(self, y: ArrayLike) -> Mapping[str, jax.Array]:
        """Return `"waveform"`, `(..., n_samples)`, of a waveform `(..., N)`, and `"image"` if there is one.

        The image is float32 `(..., n_bins, n_frames)`. Of a longer waveform only the first `seconds` are
        used; a shorter one is padded with zeros at its end.
        """
        return cast(Mapping[str, jax.Array], super().__call__(y))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AndWaveform(WaveformFrontEnd):
    """Mixin for a front end whose network takes the waveform as well as the image."""

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"image": (..., n_bins, n_frames), "waveform": (..., n_samples)}`."""
        return {"image": self.image(y), "waveform": y}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wavegram(WaveformFrontEnd):
    """The waveform itself; the network learns an image `(n_bins, n_frames)` from it (`models.Wavegram`)."""

    name: ClassVar[str] = "wavegram"

    @property
    def network_options(self) -> dict[str, Any]:
        """Network option with the size of the image to learn."""
        return {"wavegram_shape": (self.n_bins, self.n_frames)}

    def inputs(self, y: jax.Array) -> Inputs:
        """Return `{"waveform": (..., n_samples)}`."""
        return {"waveform": y}

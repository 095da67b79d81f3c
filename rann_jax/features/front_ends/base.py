"""The base class of all front ends, which turns a clip of any length into an image of one exact size.

The network's strides need a fixed number of frames, `frames_per_second * seconds`.

Every front end except those of PANNs (`panns.py`) makes the number exact in the same way:

1. The waveform is cropped, or padded with zeros at its end, to `n_samples = sample_rate * seconds`.
2. `hop_length` is `sample_rate / frames_per_second` rounded to the nearest integer (halves up).
3. Frame t is centred at sample `t * hop_length`. Zeros are appended where the last frame's centre
   lies beyond the end; frames after the last are dropped.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import devicewise

# What a network takes: an image (..., F, T), or "image", "waveform" (..., N) or both by name.
Inputs = jax.Array | Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Base class of all front ends: the rate, the size of the image, and how a clip is fitted to it.

    Attributes:
      sample_rate: sample rate of the waveforms in Hz.
      seconds: length of a clip.
      frames_per_second: frames of the image per second of sound.
      n_bins: rows of the image.
    """

    name: ClassVar[str]

    sample_rate: int = 44100
    seconds: float = 8.0
    frames_per_second: float = 128
    n_bins: int = 128

    def __post_init__(self) -> None:
        signal.check_positive(sample_rate=self.sample_rate, n_bins=self.n_bins)
        for name in ("seconds", "frames_per_second"):
            # As floats, front ends are hashable, also if an array of JAX was given.
            object.__setattr__(self, name, signal.number(name, getattr(self, name)))
        if not (0 < self.frames_per_second < math.inf and 0 < self.seconds < math.inf):
            raise ValueError("seconds and frames_per_second must be positive and finite")
        frames = self.frames_per_second * self.seconds
        if abs(frames - round(frames)) > 1e-6 * frames or round(frames) < 1:
            nearest = max(1, round(frames)) / self.frames_per_second
            raise ValueError(
                f"frames_per_second={self.frames_per_second:g} times seconds={self.seconds:g} is"
                f" {frames:g} frames, not a whole number: use seconds={nearest!r}"
            )

    @property
    def n_frames(self) -> int:
        """Columns of the image."""
        return round(self.frames_per_second * self.seconds)

    @property
    def n_samples(self) -> int:
        """Samples of the clip that the image covers."""
        return math.floor(self.sample_rate * self.seconds + 0.5)

    @property
    def padded_samples(self) -> int:
        """Samples that the feature is computed from: at least up to the centre of the last frame."""
        return max(self.n_samples, (self.n_frames - 1) * self.hop_length + 1)

    @property
    def network_options(self) -> dict[str, Any]:
        """Options that the network of this front end must be created with."""
        return {}

    @property
    def hop_length(self) -> int:
        """Samples between frames."""
        return max(1, math.floor(self.sample_rate / self.frames_per_second + 0.5))

    def features(self, y: jax.Array) -> jax.Array:
        """Return the image `(..., n_bins, T)` of a fitted waveform, T at least `n_frames`."""
        raise NotImplementedError

    def image(self, y: jax.Array) -> jax.Array:
        """Return the image `(..., n_bins, n_frames)` of a waveform of `n_samples`."""
        image = self.features(fitted(y, self.padded_samples))[..., : self.n_frames]
        wanted = (*y.shape[:-1], self.n_bins, self.n_frames)
        if image.shape != wanted:
            raise ValueError(f"front end {self.name!r} made an image {image.shape}, not {wanted}")
        return image

    def inputs(self, y: jax.Array) -> Inputs:
        """Return the network's input for a waveform of `n_samples`: the image, or named inputs."""
        return self.image(y)

    def __call__(self, y: ArrayLike) -> Inputs:
        """Return the image, float32 `(..., n_bins, n_frames)`, of a waveform `(..., N)` at `sample_rate`.

        Of a longer waveform only the first `seconds` are used; a shorter one is padded with zeros at its end.
        Front ends with `wavegram` in their name return a dict with `"waveform"`, `(..., n_samples)`, from
        which their network learns an image, and with `"image"` if they have one.
        """
        return _inputs(self, signal.as_waveform(y))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFrontEnd(FrontEnd):
    """Base class of the front ends that return an image and nothing else."""

    def __call__(self, y: ArrayLike) -> jax.Array:
        """Return the image, float32 `(..., n_bins, n_frames)`, of a waveform `(..., N)` at `sample_rate`.

        Of a longer waveform only the first `seconds` are used; a shorter one is padded with zeros at its end.
        """
        return cast(jax.Array, super().__call__(y))


def fitted(y: jax.Array, length: int) -> jax.Array:
    """Return `y` `(..., N)` cropped, or padded with zeros at its end, to `length` samples."""
    y = y[..., :length]
    return jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, length - y.shape[-1])])


@functools.partial(jax.jit, static_argnums=0)
def _inputs(front_end: FrontEnd, y: jax.Array) -> Inputs:
    y = fitted(y, front_end.n_samples)
    return devicewise(front_end.inputs, y) if y.ndim == 2 else front_end.inputs(y)

"""SpecAugment, which hides stripes of the feature image."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rann_jax.augment.batch import images


def spec_augment(
    key: jax.Array,
    features: ArrayLike,
    *,
    time_stripes: int,
    time_width: int,
    frequency_stripes: int,
    frequency_width: int,
) -> jax.Array:
    """Hide stripes of random width and position, drawn for each example.

    Source: Park et al., "SpecAugment", Interspeech 2019. A stripe is w ~ U{0, ..., width} wide and begins at
    U{0, ..., size - w}. Hidden values become the mean of the image, as in that paper for features whose mean
    is not zero.

    Args:
      key: random key.
      features: (B, F, T).
      time_stripes: number of stripes of frames.
      time_width: greatest width of a stripe in frames, at most T.
      frequency_stripes: number of stripes of bins.
      frequency_width: greatest width of a stripe in bins, at most F.

    Returns:
      (B, F, T).

    Raises:
      ValueError: features are not (B, F, T); a width exceeds the image; a width or a number of stripes
        is negative.
    """
    features = images(features)
    numbers = {
        "time_stripes": time_stripes,
        "time_width": time_width,
        "frequency_stripes": frequency_stripes,
        "frequency_width": frequency_width,
    }
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"spec_augment: {name}={number} must be 0 or more")
    batch, bins, frames = features.shape
    if time_width > frames or frequency_width > bins:
        raise ValueError(
            f"spec_augment: stripes of {frequency_width} bins and {time_width} frames do not fit an "
            f"image of {bins} x {frames}"
        )
    time_key, frequency_key = jax.random.split(key)
    hidden_frames = _stripes(time_key, batch, frames, time_stripes, time_width)
    hidden_bins = _stripes(frequency_key, batch, bins, frequency_stripes, frequency_width)
    hidden = hidden_frames[:, None, :] | hidden_bins[:, :, None]
    return jnp.where(hidden, features.mean(axis=(1, 2), keepdims=True), features)


def _stripes(key: jax.Array, batch: int, size: int, stripes: int, width: int) -> jax.Array:
    """Return which of `size` positions are hidden, bool (batch, size)."""
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (batch, stripes, 1), 0, width + 1, jnp.int32)
    starts = jax.random.randint(start_key, (batch, stripes, 1), 0, size - widths + 1, jnp.int32)
    position = jnp.arange(size, dtype=jnp.int32)[None, None]
    return jnp.any((position >= starts) & (position < starts + widths), axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """`spec_augment` with widths as shares of the image; the defaults are the deck's geometry.

    With 128 bins and 128 frames a second these are 2 stripes of up to 16 bins and 2 of up to 8 t_c frames.

    Attributes:
      time_stripes: number of stripes of frames.
      time_share: greatest width of a stripe, as a share of T.
      frequency_stripes: number of stripes of bins.
      frequency_share: greatest width of a stripe, as a share of F.
    """

    on: ClassVar[str] = "features"

    time_stripes: int = 2
    time_share: float = 1 / 16
    frequency_stripes: int = 2
    frequency_share: float = 1 / 8

    def __post_init__(self) -> None:
        if not (0 <= self.time_share <= 1 and 0 <= self.frequency_share <= 1):
            raise ValueError("spec_augment: time_share and frequency_share must be between 0 and 1")
        if not (0 <= self.time_stripes < math.inf and 0 <= self.frequency_stripes < math.inf):
            raise ValueError("spec_augment: time_stripes and frequency_stripes must be 0 or more, and finite")

    def __call__(self, key: jax.Array, features: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return feature images (B, F, T) with stripes hidden; labels are unchanged."""
        _, bins, frames = features.shape
        hidden = spec_augment(
            key,
            features,
            time_stripes=self.time_stripes,
            time_width=round(self.time_share * frames),
            frequency_stripes=self.frequency_stripes,
            frequency_width=round(self.frequency_share * bins),
        )
        return hidden, labels

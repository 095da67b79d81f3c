"""Which augmentations a run uses: built from `config.augment`, applied before and after the front end.

A new augmentation is one dataclass, callable as (key, x, labels) -> (x, labels), that says whether it works
`on` "audio" (B, N) or "features" (B, F, T); and one line in AUGMENTATIONS, whose order is the order of
application.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from rann_jax.augment.gain import Gain
from rann_jax.augment.mixup import Mixup
from rann_jax.augment.specaugment import SpecAugment

AUGMENTATIONS: dict[str, type] = {
    "gain": Gain,
    "mixup": Mixup,
    "spec_augment": SpecAugment,
}

Features = jax.Array | dict[str, jax.Array]
Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Policy:
    """The augmentations of a run, in order.

    Attributes:
      audio: those of the waveform.
      features: those of the feature image.
    """

    audio: tuple[Augmentation, ...] = ()
    features: tuple[Augmentation, ...] = ()

    def on_audio(self, key: jax.Array, audio: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Waveforms (B, N) and labels (B, C), augmented."""
        return _apply(self.audio, jax.random.fold_in(key, 0), audio, labels)

    def on_features(
        self, key: jax.Array, features: Features, labels: jax.Array
    ) -> tuple[Features, jax.Array]:
        """Feature images (B, F, T) and labels (B, C), augmented; of named inputs, only the "image"."""
        key = jax.random.fold_in(key, 1)
        if not isinstance(features, dict):
            return _apply(self.features, key, features, labels)
        if "image" not in features:
            return features, labels
        image, labels = _apply(self.features, key, features["image"], labels)
        return {**features, "image": image}, labels


def policy(options: Mapping[str, Mapping[str, Any]]) -> Policy:
    """The policy that `config.augment` describes: the options of each augmentation by its name.

    Raises:
      ValueError: unknown augmentation or option, or a value out of range.
    """
    unknown = sorted(set(options) - set(AUGMENTATIONS))
    if unknown:
        raise ValueError(f"unknown augmentation {unknown[0]!r}: there are {', '.join(AUGMENTATIONS)}")
    chosen = []
    for name, cls in AUGMENTATIONS.items():
        if name in options:
            try:
                chosen.append(cls(**options[name]))
            except TypeError as error:
                raise ValueError(f"{name}: {error}") from error
    return Policy(
        audio=tuple(a for a in chosen if a.on == "audio"),
        features=tuple(a for a in chosen if a.on == "features"),
    )


def _apply(
    augmentations: tuple[Augmentation, ...], key: jax.Array, x: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    for number, augmentation in enumerate(augmentations):
        x, labels = augmentation(jax.random.fold_in(key, number), x, labels)
    return x, labels

"""The augmentations of a run, how often they apply and until when, built from `config.augment`.

To add an augmentation, write one dataclass, callable as (key, x, labels) -> (x, labels), whose class variable
`on` is "audio" (B, N) or "features" (B, F, T), and add one line to AUGMENTATIONS, which gives the order of
application. A field `sample_rate` is set to the run's. A dataclass with `one_by_one = True` gets one example
at a time and, on a CPU, only the examples that were drawn: for expensive augmentations without partners.
If it draws one number per example, `draw(key, x)` returns these numbers (B,), and `drawn` is a format that
puts one into words, for the demonstration.

Every augmentation takes two more options: `probability`, with which an example is augmented (default 1), and
`until`, the share of training after which the augmentation stops (default 1).
"""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rann_jax.augment.batch import floating
from rann_jax.augment.between_class import BetweenClass
from rann_jax.augment.gain import Gain
from rann_jax.augment.mixup import FeatureMixup, Mixup
from rann_jax.augment.noise import WhiteNoise
from rann_jax.augment.pitch import Pitch
from rann_jax.augment.place import Crop, Roll
from rann_jax.augment.specaugment import SpecAugment
from rann_jax.augment.stretch import Stretch
from rann_jax.features.clipwise import devicewise
from rann_jax.features.front_ends.base import Inputs
from rann_jax.options import check, did_you_mean

AUGMENTATIONS: dict[str, type] = {
    "crop": Crop,
    "stretch": Stretch,
    "pitch": Pitch,
    "gain": Gain,
    "roll": Roll,
    "white_noise": WhiteNoise,
    "mixup": Mixup,
    "between_class": BetweenClass,
    "feature_mixup": FeatureMixup,
    "spec_augment": SpecAugment,
}

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """An augmentation, with how often it applies and until when.

    Attributes:
      name: its name in `AUGMENTATIONS`; its draws depend on it, but not on the run's other augmentations.
      augmentation: the augmentation itself.
      probability: probability with which each example is augmented.
      stops_at: the first step without it; None if it never stops.
    """

    name: str
    augmentation: Augmentation
    probability: float = 1.0
    stops_at: int | None = None

    def __call__(
        self, key: jax.Array, x: jax.Array, labels: jax.Array, step: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """Return x (B, ...) and labels (B, C), with the examples augmented that are drawn at this step."""
        key, draw_key = jax.random.split(jax.random.fold_in(key, zlib.crc32(self.name.encode())))
        one_by_one = getattr(self.augmentation, "one_by_one", False)
        if self.probability == 1 and self.stops_at is None and not one_by_one:
            return self.augmentation(key, x, labels)
        drawn = jax.random.bernoulli(draw_key, jnp.float32(self.probability), (len(x),))
        if self.stops_at is not None:
            drawn = drawn & (jnp.asarray(step) < self.stops_at)
        if one_by_one:
            return self._one_by_one(key, drawn, x, labels)
        labels = jnp.asarray(labels)
        augmented = self.augmentation(key, x, labels)
        return _choose(drawn, augmented[0], x), _choose(drawn, augmented[1], labels)

    def _one_by_one(
        self, key: jax.Array, drawn: jax.Array, x: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Augment each drawn example with its own key: one after another on a CPU, all at once elsewhere.

        x keeps its type, except that integers become float32.
        """
        x = floating(x)

        def augment(example: tuple[jax.Array, ...]) -> jax.Array:
            key, drawn, x = example

            def changed() -> jax.Array:
                return self.augmentation(key, x[None], labels)[0][0].astype(x.dtype)

            return jax.lax.cond(drawn, changed, lambda: x)

        def one_after_another(*examples: jax.Array) -> jax.Array:
            return jax.lax.map(augment, examples)

        def at_once(*examples: jax.Array) -> jax.Array:
            return jax.vmap(augment)(examples)

        def augment_all(*examples: jax.Array) -> jax.Array:
            return jax.lax.platform_dependent(*examples, cpu=one_after_another, default=at_once)

        return devicewise(augment_all, jax.random.split(key, len(x)), drawn, x), labels


@dataclasses.dataclass(frozen=True)
class Policy:
    """The augmentations of a run, in order, each with a name of its own.

    Attributes:
      audio: augmentations of the waveform.
      features: augmentations of the feature image.

    Raises:
      ValueError: two have the same name, and would draw the same.
    """

    audio: tuple[Scheduled, ...] = ()
    features: tuple[Scheduled, ...] = ()

    def __post_init__(self) -> None:
        names = [scheduled.name for scheduled in (*self.audio, *self.features)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"two augmentations have the name {twice[0]!r} and would draw the same: rename one"
            )

    def on_audio(
        self, key: jax.Array, audio: jax.Array, labels: jax.Array, step: jax.Array | int = 0
    ) -> tuple[jax.Array, jax.Array]:
        """Return waveforms (B, N) and labels (B, C), augmented for this step of training."""
        return _apply(self.audio, key, audio, labels, step)

    def on_features(
        self, key: jax.Array, inputs: Inputs, labels: jax.Array, step: jax.Array | int = 0
    ) -> tuple[Inputs, jax.Array]:
        """Return feature images (B, F, T) and labels (B, C), augmented; of named inputs only the "image" is.

        Raises:
          ValueError: images are to be mixed, but the network also takes the waveforms, which are not mixed.
        """
        if not isinstance(inputs, Mapping):
            return _apply(self.features, key, inputs, labels, step)
        if any(isinstance(scheduled.augmentation, FeatureMixup) for scheduled in self.features):
            raise ValueError(
                f"feature_mixup mixes images only, but the front end gives {' and '.join(inputs)}: "
                "use mixup, which mixes the waveforms"
            )
        if "image" not in inputs:
            return inputs, labels
        image, labels = _apply(self.features, key, inputs["image"], labels, step)
        return {**inputs, "image": image}, labels


def policy(
    options: Mapping[str, Mapping[str, Any]], *, sample_rate: float, total_steps: int | None = None
) -> Policy:
    """Return the policy that `config.augment` describes.

    Args:
      options: options of each augmentation by its name, as {"gain": {"low_db": -3.0, "probability": 0.5}}.
      sample_rate: sample rate of the waveforms in Hz.
      total_steps: number of training steps, for the option `until`.

    Raises:
      ValueError: unknown augmentation or option, or a value out of range.

    >>> len(policy({"gain": {}, "mixup": {"until": 0.9}}, sample_rate=8000, total_steps=100).audio)
    2
    """
    unknown = sorted(set(options) - set(AUGMENTATIONS))
    if unknown:
        raise ValueError(
            f"unknown augmentation {unknown[0]!r}: use one of {', '.join(AUGMENTATIONS)}"
            + did_you_mean(unknown[0], AUGMENTATIONS)
        )
    chosen = [
        _scheduled(name, options[name], sample_rate, total_steps) for name in AUGMENTATIONS if name in options
    ]
    return Policy(
        audio=tuple(a for a in chosen if a.augmentation.on == "audio"),
        features=tuple(a for a in chosen if a.augmentation.on == "features"),
    )


def _scheduled(name: str, given: Mapping[str, Any], sample_rate: float, total_steps: int | None) -> Any:
    cls = AUGMENTATIONS[name]
    try:
        options = dict(given)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}={given!r} must be a dict of options of {name}: {{}} keeps the defaults"
        ) from None
    # The sample rate is the run's.
    check(cls, options, of=name, also={"probability": float, "until": float}, but=["sample_rate"])
    probability, until = options.pop("probability", 1.0), options.pop("until", 1.0)
    for key, value in (("probability", probability), ("until", until)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: {key}={value} must be between 0 and 1")
    if until < 1 and total_steps is None:
        raise ValueError(
            f"{name}: until={until} is a share of total_steps, which is missing: give total_steps"
        )
    if any(field.name == "sample_rate" for field in dataclasses.fields(cls)):
        options["sample_rate"] = sample_rate
    augmentation = cls(**options)
    stops_at = round(until * total_steps) if until < 1 and total_steps is not None else None
    return Scheduled(name, augmentation, probability, stops_at)


def _apply(
    schedule: tuple[Scheduled, ...], key: jax.Array, x: jax.Array, labels: jax.Array, step: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    for scheduled in schedule:
        x, labels = scheduled(key, x, labels, step)
    return x, labels


def _choose(drawn: jax.Array, augmented: jax.Array, original: jax.Array) -> jax.Array:
    # Augmentations turn integers into float32.
    unchanged = jnp.asarray(original).astype(augmented.dtype)
    return jnp.where(drawn.reshape(-1, *(1,) * (original.ndim - 1)), augmented, unchanged)

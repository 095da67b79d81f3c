"""Augmentation on the device: pure functions of a random key and a batch; each example has its own draw."""

from rann_jax.augment.between_class import BetweenClass, a_weighting, between_class, sound_pressure
from rann_jax.augment.gain import Gain, gain
from rann_jax.augment.mixup import FeatureMixup, Mixup, mixup
from rann_jax.augment.noise import WhiteNoise, white_noise
from rann_jax.augment.pitch import Pitch, pitch_shift
from rann_jax.augment.place import Crop, Roll, crop, roll
from rann_jax.augment.policy import AUGMENTATIONS, Policy, policy
from rann_jax.augment.specaugment import SpecAugment, spec_augment
from rann_jax.augment.stretch import Stretch, stretch

__all__ = [
    "AUGMENTATIONS",
    "BetweenClass",
    "Crop",
    "FeatureMixup",
    "Gain",
    "Mixup",
    "Pitch",
    "Policy",
    "Roll",
    "SpecAugment",
    "Stretch",
    "WhiteNoise",
    "a_weighting",
    "between_class",
    "crop",
    "gain",
    "mixup",
    "pitch_shift",
    "policy",
    "roll",
    "sound_pressure",
    "spec_augment",
    "stretch",
    "white_noise",
]

"""Augmentation on the device: pure functions of a random key and a batch, each example with its own draw."""

from rann_jax.augment.gain import Gain, gain
from rann_jax.augment.mixup import Mixup, mixup
from rann_jax.augment.policy import AUGMENTATIONS, Policy, policy
from rann_jax.augment.specaugment import SpecAugment, spec_augment

__all__ = [
    "AUGMENTATIONS",
    "Gain",
    "Mixup",
    "Policy",
    "SpecAugment",
    "gain",
    "mixup",
    "policy",
    "spec_augment",
]

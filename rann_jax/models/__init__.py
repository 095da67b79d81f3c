"""Networks by name: `create("rann-8x4-6", num_classes=527)`, `complexity("rann-8x4-6")`."""

from rann_jax.models.complexity import Complexity, complexity
from rann_jax.models.rann import RANN, ResidualBlock
from rann_jax.models.registry import (
    FAMILIES,
    Family,
    Network,
    attributes,
    create,
    crop_seconds,
    head,
    naming,
)
from rann_jax.models.wavegram import Wavegram

__all__ = [
    "FAMILIES",
    "RANN",
    "Complexity",
    "Family",
    "Network",
    "ResidualBlock",
    "Wavegram",
    "attributes",
    "complexity",
    "create",
    "crop_seconds",
    "head",
    "naming",
]

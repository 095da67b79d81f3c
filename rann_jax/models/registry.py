"""Registry of networks by name. To add a network, write one file and add one line here."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from rann_jax.models import panns, rann


@dataclasses.dataclass(frozen=True)
class Family:
    """What must be known of a network before it is built.

    Attributes:
      build: (name, num_classes=..., **options) -> network.
      head: name of the last layer, whose units are the classes; all layers before it are the trunk.
      crop_seconds: name -> clip length in seconds that the name prescribes; None if names prescribe none.
    """

    build: Callable[..., nn.Module]
    head: str
    crop_seconds: Callable[[str], float] | None = None


# By the network's name; or, if names have parameters, by what precedes these, up to and with the hyphen.
FAMILIES: dict[str, Family] = {
    "rann-": Family(rann.from_name, rann.HEAD, rann.crop_seconds),
    **dict.fromkeys(panns.NETWORKS, Family(panns.from_name, panns.HEAD)),
}


def create(name: str, *, num_classes: int, **options: Any) -> nn.Module:
    """Return the network of a name, a flax.linen module that maps feature images (B, F, T) to logits.

    Args:
      name: `rann-{t_c}x{t_m}-{W}`, such as `rann-8x4-6`; or cnn14, resnet38, wavegram_logmel_cnn14.
      num_classes: number of logits.
      **options: attributes of the module, such as dtype and blocks_per_stage; None keeps its default.

    Raises:
      ValueError: no such network, or no such option.

    >>> from rann_jax import models
    >>> models.create("rann-8x4-6", num_classes=527).width
    6
    """
    build = _family(name).build
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return build(name, num_classes=num_classes, **given)
    except TypeError as error:
        raise ValueError(f"network {name!r}: {error}") from error


def head(name: str) -> str:
    """Return the name of the last layer, whose units are the classes; all layers before it are the trunk.

    Raises:
      ValueError: no such network.
    """
    return _family(name).head


def crop_seconds(name: str) -> float | None:
    """Return the clip length in seconds that a name prescribes (t_c of a RANN), or None.

    Raises:
      ValueError: no such network.
    """
    prescribed = _family(name).crop_seconds
    return prescribed(name) if prescribed else None


def _family(name: str) -> Family:
    key = name if name in FAMILIES else name.partition("-")[0] + "-"
    if key not in FAMILIES:
        raise ValueError(f"unknown network {name!r}: the families are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[key]

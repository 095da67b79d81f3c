"""Registry of networks by name.

To add a network, write one file, and add a line to FAMILIES and its class to `Network`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

from flax import linen as nn

from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.models import panns, rann

# What `create` returns: all have `num_classes`, `width`, `dtype` and `embed`.
Network: TypeAlias = rann.RANN | panns.PANN


@dataclasses.dataclass(frozen=True)
class Family:
    """What must be known of a network before it is built.

    Attributes:
      build: (name, num_classes=..., **options) -> network.
      head: name of the last layer, whose units are the classes; all layers before it are the trunk.
      crop_seconds: name -> clip length in seconds that the name prescribes; None if names prescribe none.
      name_of: (network, clip length in seconds) -> its name, None for networks of other families; needed only
        if names have parameters.
      form: what the names look like, if they have parameters.
      front_end: the front end that the network was published with; None if it was with none in particular.
        Its complexity is that for this input, or else for a log-mel of the length in its name.
    """

    build: Callable[..., Network]
    head: str
    crop_seconds: Callable[[str], float] | None = None
    name_of: Callable[[nn.Module, float], str | None] | None = None
    form: str = ""
    front_end: FrontEnd | None = None


# By the network's name; or, if names have parameters, by what precedes these, up to and with the hyphen.
FAMILIES: dict[str, Family] = {
    "rann-": Family(rann.from_name, rann.HEAD, rann.crop_seconds, rann.to_name, rann.FORM),
    **{
        name: Family(panns.from_name, panns.HEAD, front_end=panns.PUBLISHED_WITH[name])
        for name in panns.NETWORKS
    },
}


def create(name: str, *, num_classes: int, **options: Any) -> Network:
    """Return the network of a name, a flax.linen module that maps feature images (B, F, T) to logits.

    Args:
      name: `rann-{t_c}x{t_m}-{W}`, such as `rann-8x4-6`; or cnn14, resnet38, wavegram_logmel_cnn14. They are
        the keys of FAMILIES, where `rann-` stands for all names that begin with it.
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


def naming(network: nn.Module, *, seconds: float) -> dict[str, Any]:
    """Return the arguments with which `create` makes this network again, except for the number of classes.

    Args:
      network: made by `create`.
      seconds: length of its clips. The name of a RANN has it, but the network does not know it.

    Returns:
      The name, and the options that differ from their defaults.

    Raises:
      ValueError: it is not one of these networks.

    >>> naming(create("rann-8x4-6", num_classes=3, blocks_per_stage=2), seconds=1.0)
    {'name': 'rann-1x4-6', 'blocks_per_stage': 2}
    """
    name = _name_of(network, seconds)
    values = attributes(network)
    plain = attributes(create(name, num_classes=values["num_classes"]))
    return {"name": name} | {key: value for key, value in values.items() if value != plain[key]}


def _name_of(network: nn.Module, seconds: float) -> str:
    for key, family in FAMILIES.items():
        name = family.name_of(network, seconds) if family.name_of else key
        # The type is compared exactly: `create` would not make the network of a subclass.
        if name and type(family.build(name, num_classes=1)) is type(network):
            return name
    raise ValueError(f"{type(network).__name__} is not a network of models.create")


def attributes(network: nn.Module) -> dict[str, Any]:
    """Return the values of a network's attributes by name."""
    names = (field.name for field in dataclasses.fields(network) if field.name not in ("parent", "name"))
    return {name: getattr(network, name) for name in names}


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


def published_front_end(name: str) -> FrontEnd | None:
    """Return the front end that a network was published with; or None.

    Raises:
      ValueError: no such network.
    """
    return _family(name).front_end


def _family(name: str) -> Family:
    key = name if name in FAMILIES else name.partition("-")[0] + "-"
    if key not in FAMILIES:
        known = [family.form or name for name, family in FAMILIES.items()]
        raise ValueError(f"unknown network {name!r}: use one of {', '.join(known)}")
    return FAMILIES[key]

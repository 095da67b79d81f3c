"""Registry of networks by name. To add a network, write one file and add one line here."""

from collections.abc import Callable

from flax import linen as nn

from rann_jax.models import panns, rann

# Name (of a RANN, up to its first hyphen) -> builder(name, num_classes=..., **options).
FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "rann": rann.from_name,
    **dict.fromkeys(panns.NETWORKS, panns.from_name),
}


def create(name: str, *, num_classes: int, **options) -> nn.Module:
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
    family = "rann" if name.startswith("rann-") else name
    if family not in FAMILIES:
        raise ValueError(f"unknown network {name!r}: the families are {', '.join(sorted(FAMILIES))}")
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return FAMILIES[family](name, num_classes=num_classes, **given)
    except TypeError as error:
        raise ValueError(f"network {name!r}: {error}") from error


def head(name: str) -> str:
    """Return the name of the last layer, whose units are the classes; all layers before it are the trunk."""
    return rann.HEAD if name.startswith("rann-") else panns.HEAD


def crop_seconds(name: str) -> float | None:
    """Return the clip length in seconds that a name prescribes (t_c of a RANN), or None."""
    return rann.parse_name(name)[0] if name.startswith("rann-") else None

"""Conversion of state_dicts to linen variables and back, entry by entry; errors name what does not fit."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rann_jax import models
from rann_jax.errors import ConfigError
from rann_jax.interop.files import describe, read_entries, write_entries
from rann_jax.interop.names import NOT_WEIGHTS, entry_name, to_linen_layout, to_torch_layout, torch_shape
from rann_jax.models import panns
from rann_jax.models.wavegram import POOLING

# Frames of the images that parameters are laid out for; a multiple of every network's time strides.
FRAMES = 64


class Loaded(NamedTuple):
    """Result of loading a state_dict.

    Attributes:
      variables: variables of the network, {"params": ..., "batch_stats": ...}, float32.
      skipped: names of the entries that are not weights of the network: PANNs' frozen front end, counters.
    """

    variables: dict[str, Any]
    skipped: tuple[str, ...]


def load_torch(source: str | os.PathLike | Mapping[str, Any], network: str, **options: Any) -> Loaded:
    """Load linen variables of `network` from a PyTorch file; it sets the number of classes.

    Args:
      source: a `.pth` file, whose code is never run; a `.safetensors` file; or a state_dict of tensors or
        arrays. If it is a dict with the key `model` or `state_dict`, the state_dict under that key.
      network: cnn14, resnet38, wavegram_logmel_cnn14 or a `rann-...` name.
      **options: attributes of the network that its name does not give, such as shortcut_norm.

    Raises:
      ConfigError: the file cannot be read, its entries are not those of `network` (the message says which
        differ), or `network` is neither a RANN nor one of PANNs'.
      ValueError: no such network or option.
    """
    return from_state_dict(read_entries(source), network, where=describe(source), **options)


def from_state_dict(
    entries: Mapping[str, np.ndarray], network: str, *, where: str = "the state_dict", **options: Any
) -> Loaded:
    """Do the same as `load_torch` for arrays; messages call their origin `where`."""
    expected = flatten_dict(_shapes(entries, network, options))
    names = {path: entry_name(network, path[1:]) for path in expected}
    shapes = {names[path]: torch_shape(leaf.shape) for path, leaf in expected.items()}
    others = [name for name in entries if name not in shapes]
    skipped = tuple(name for name in others if NOT_WEIGHTS.search(name))
    differences = _differences(entries, shapes, unknown=[name for name in others if name not in skipped])
    if differences:
        raise ConfigError(f"{where}: not the weights of {network}: it has {differences}")
    # The source may be the memory of a PyTorch network, which may change it later. NumPy copies it at once,
    # `jnp.array` only when the device is free.
    copies = {path: np.array(to_linen_layout(entries[name]), np.float32) for path, name in names.items()}
    leaves = {path: jnp.asarray(array) for path, array in copies.items()}
    return Loaded(unflatten_dict(leaves), skipped)


def to_state_dict(variables: Mapping[str, Any], network: str) -> dict[str, np.ndarray]:
    """Return the arrays of linen variables (params, batch_stats or both) with PyTorch's names and layouts.

    They are copies, so a PyTorch network may take over their memory and train. PANNs' frozen front end and
    BatchNorm's counters are missing: use `load_state_dict(..., strict=False)`.

    >>> dense = {"params": {"fc1": {"kernel": np.zeros((8, 4)), "bias": np.zeros(4)}}}
    >>> {name: array.shape for name, array in to_state_dict(dense, "cnn14").items()}
    {'fc1.weight': (4, 8), 'fc1.bias': (4,)}
    """
    return {
        entry_name(network, path[1:]): np.array(to_torch_layout(np.asarray(leaf)), order="C")
        for path, leaf in flatten_dict(dict(variables)).items()
    }


def save_torch(path: str | os.PathLike, variables: Mapping[str, Any], network: str) -> None:
    """Write `to_state_dict` to a file, with safetensors if its suffix is `.safetensors`, else by torch.save.

    Raises:
      ConfigError: the file cannot be written, or torch (safetensors) is not installed.
    """
    write_entries(Path(path), to_state_dict(variables, network))


def _differences(
    entries: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], unknown: list[str]
) -> str:
    """Describe the missing, unknown and misshapen entries: the first of each kind, and how many more."""
    kinds = {
        "no entry": [repr(name) for name in shapes if name not in entries],
        "the unknown entry": [repr(name) for name in unknown],
        "the wrong shape for": [
            f"{name!r}, {entries[name].shape} instead of {shape}"
            for name, shape in shapes.items()
            if name in entries and entries[name].shape != shape
        ],
    }
    return "; ".join(
        f"{kind} {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        for kind, found in kinds.items()
        if found
    )


def _shapes(entries: Mapping[str, np.ndarray], network: str, options: Mapping[str, Any]) -> dict:
    """Return the shapes of the network's variables, with as many classes and bins as the entries have."""
    head = f"{models.head(network)}.weight"
    if not (network in panns.NETWORKS or network.startswith("rann-")):
        raise ConfigError(
            f"weights of {network} cannot be read from PyTorch, only those of RANNs and PANNs: use a workdir"
        )
    x = _inputs(entries, network)
    if isinstance(x, dict) and "image" not in x:
        options = {"wavegram_shape": (_size(entries, "wavegram_norm.weight", 128), FRAMES), **options}
    model = models.create(network, num_classes=_size(entries, head, 1), **options)
    return jax.eval_shape(model.init, jax.random.key(0), x)


def _inputs(entries: Mapping[str, np.ndarray], network: str) -> Any:
    """Return the shapes of the inputs that the network with these entries takes."""
    is_pann = network in panns.NETWORKS
    bins = _size(entries, "bn0.weight" if is_pann else "input_norm.weight", 64)
    # The first kernel of a wavegram has length 2 * stride + 1 (PANNs: 11); the stride depends on the sample
    # rate.
    first_kernel = entry_name(network, ("wavegram", "conv0", "kernel"))
    stride = max(1, _size(entries, first_kernel, 11, axis=2) // 2)
    image = jax.ShapeDtypeStruct((1, bins, FRAMES), jnp.float32)
    waveform = jax.ShapeDtypeStruct((1, stride * POOLING**3 * FRAMES), jnp.float32)
    if network == "wavegram_logmel_cnn14":
        # The 128 rows fold to half of PANNs' 64 bins; another number of bins would be another network.
        return {"image": jax.ShapeDtypeStruct((1, 64, FRAMES), jnp.float32), "waveform": waveform}
    if is_pann or "wavegram.conv0.weight" not in entries:
        return image
    if "input_norm.weight" in entries:
        return {"image": image, "waveform": waveform}
    return {"waveform": waveform}


def _size(entries: Mapping[str, np.ndarray], name: str, default: int, axis: int = 0) -> int:
    """Return the length of an entry's axis, or the default if it has none; its shape is checked later."""
    shape = entries[name].shape if name in entries else ()
    return shape[axis] if len(shape) > axis and shape[axis] else default

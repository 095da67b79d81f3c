"""Mapping between linen variables and the entries of a PyTorch state_dict, in names and layouts.

The PANNs networks keep the names of their published code, except those in PANNS_NAMES. For other networks,
such as RANNs, which were never published, the names are linen paths with dots.
"""

import re

import numpy as np

from rann_jax.models import panns

# From a linen path with dots (left) to the published name (right).
PANNS_NAMES = (
    (r"^layer(\d+)_(\d+)\.", r"resnet.layer\1.\2."),
    (r"\.downsample_conv\.", ".downsample.1."),
    (r"\.downsample_bn\.", ".downsample.2."),
    (r"^wavegram\.conv0\.", "pre_conv0."),
    (r"^wavegram\.norm0\.", "pre_bn0."),
    (r"^wavegram\.block(\d+)_conv(\d+)\.", r"pre_block\1.conv\2."),
    (r"^wavegram\.block(\d+)_norm(\d+)\.", r"pre_block\1.bn\2."),
)
PUBLISHED_NAMES = dict.fromkeys(panns.NETWORKS, PANNS_NAMES)
LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Entries of a state_dict that a network here does not have: the front end as frozen convolutions, and
# counters that PyTorch keeps for a BatchNorm option that none of the networks uses.
NOT_WEIGHTS = re.compile(r"^(spectrogram_extractor|logmel_extractor)\.|(^|\.)num_batches_tracked$")


def entry_name(network: str, path: tuple[str, ...]) -> str:
    """Return the state_dict's name of the linen variable at `path`, which is without its collection.

    >>> entry_name("resnet38", ("layer2_0", "downsample_conv", "kernel"))
    'resnet.layer2.0.downsample.1.weight'
    >>> entry_name("rann-8x4-6", ("stage0_block0", "norm1", "var"))
    'stage0_block0.norm1.running_var'
    """
    name = ".".join([*path[:-1], LEAF_NAMES[path[-1]]])
    for pattern, published in PUBLISHED_NAMES.get(network, ()):
        name = re.sub(pattern, published, name)
    return name


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return PyTorch's shape (outputs, inputs, ...) of a kernel (..., inputs, outputs); vectors stay.

    >>> torch_shape((3, 6, 8, 16))
    (16, 8, 3, 6)
    """
    return shape if len(shape) < 2 else (shape[-1], shape[-2], *shape[:-2])


def to_torch_layout(array: np.ndarray) -> np.ndarray:
    """Return the array in PyTorch's layout, with the shape that `torch_shape` gives."""
    return array if array.ndim < 2 else np.ascontiguousarray(np.moveaxis(array, (-1, -2), (0, 1)))


def to_linen_layout(array: np.ndarray) -> np.ndarray:
    """Return the array in linen's layout: the inverse of `to_torch_layout`."""
    return array if array.ndim < 2 else np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))

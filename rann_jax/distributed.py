"""The device mesh, and how batches and state are laid out on it."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rann_jax.errors import ConfigError


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, `data`."""
    # Auto: the default explicit axes refuse random permutations inside jit.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(key: str, batch_size: int, mesh: Mesh) -> None:
    """Raise ConfigError unless the devices can share a batch of this size evenly."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ConfigError(
            f"config.{key}={batch_size} cannot be shared by {mesh.size} devices: use a multiple of "
            f"{mesh.size}"
        )


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's part (local_B, ...) of a global batch on its devices."""
    sharding = split_batch(mesh)
    return {key: jax.make_array_from_process_local_data(sharding, array) for key, array in batch.items()}


def to_host(tree: Any) -> Any:
    """Whole arrays as numpy, on every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)

"""Shard arrays of the state by the rules of the config.

With `config.sharding.model` = M, each group of M neighbouring devices shards the arrays that a rule names:
parameters, their moving average and Adam's moments. Parameters are gathered where the network needs them, and
each device updates its own part (fully sharded data parallelism, ZeRO stage 3 of Rajbhandari et al., 2020).
Every device still has its own examples, so the results equal those of unsharded arrays up to rounding.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rann_jax.distributed import MODEL
from rann_jax.errors import ConfigError

LARGEST = "largest"
Rules = Sequence[tuple[str, int | str]]


def state_shardings(abstract: Any, mesh: Mesh, rules: Rules) -> Any:
    """Return the placement of every array of a state.

    Args:
      abstract: a tree of arrays or ShapeDtypeStructs.
      mesh: the devices. Without an axis `model`, or without rules, all arrays are replicated; the rules are
        checked all the same, because a mistake would otherwise show only on more devices.
      rules: (pattern, axis) pairs. The first rule whose regular expression is found in the array's path, such
        as `params/stage4_block0/conv1/kernel`, gives the axis along which to split it. The axis is a number,
        or "largest": the longest axis that the devices can split evenly, or no axis if there is none.

    Raises:
      ConfigError: a rule is malformed, applies to no array, or names an axis that cannot be split evenly.
    """
    compiled = [_checked(rule) for rule in rules]
    used = set()

    def place(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, axis in compiled:
            if pattern.search(name):
                used.add(pattern.pattern)
                spec = _spec(name, leaf.shape, axis, mesh.shape.get(MODEL, 1))
                return NamedSharding(mesh, spec if MODEL in mesh.shape else PartitionSpec())
        return NamedSharding(mesh, PartitionSpec())

    placed = jax.tree_util.tree_map_with_path(place, abstract)
    for pattern, _ in compiled:
        if pattern.pattern not in used:
            raise ConfigError(
                f"config.sharding.rules: {pattern.pattern!r} applies to no array (the first matching rule "
                "counts): correct or remove it"
            )
    return placed


def _checked(rule: Any) -> tuple[re.Pattern[str], int | str]:
    try:
        pattern, axis = rule
        if axis != LARGEST and not isinstance(axis, int):
            raise ValueError(f"the axis must be a whole number or {LARGEST!r}")
        return re.compile(pattern), axis
    except (ValueError, TypeError, re.error) as error:
        raise ConfigError(f"config.sharding.rules: {rule!r}: {error}") from error


def _spec(name: str, shape: tuple[int, ...], axis: int | str, devices: int) -> PartitionSpec:
    if isinstance(axis, str):
        shared = [i for i, size in enumerate(shape) if size % devices == 0]
        if not shared:
            return PartitionSpec()
        axis = max(shared, key=lambda i: shape[i])
    elif not 0 <= axis < len(shape):
        raise ConfigError(
            f"config.sharding.rules: {name}, {shape}, has no axis {axis}: axes are counted from 0"
        )
    elif shape[axis] % devices:
        raise ConfigError(
            f"config.sharding.rules: axis {axis} of {name}, {shape}, cannot be split evenly over {devices} "
            "devices"
        )
    return PartitionSpec(*[None] * axis, MODEL)

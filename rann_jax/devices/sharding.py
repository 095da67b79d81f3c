"""Shard arrays of the state by the rules of the config.

With `config.sharding.model` = M, each group of M neighbouring devices shards the arrays that a rule names:
parameters, their moving average and Adam's moments. Each device has its own examples and updates its own part
of these arrays, as in ZeRO (Rajbhandari et al., 2020), so the results equal those of unsharded arrays up to
rounding. The memory of the state is divided by M, that of the rest of a step is not: the network's parameters
are gathered once in each step (each part of it, with config.accumulate), and kept for the backward pass.

A gradient is wanted only in the parts. Compiled for a TPU v5e, those of large kernels are reduced straight
into them (reduce-scatter), small ones whole; on CPUs all are reduced whole, then cut.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rann_jax.distributed import MODEL, replicated
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
    if not isinstance(rules, Sequence):
        raise ConfigError(f"config.sharding.rules={rules!r} must be a tuple of (pattern, axis) pairs")
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


def gathering(shards: Any, mesh: Mesh) -> Callable[[Any], Any]:
    """Return a function of parameters that gathers them, and whose gradients are on the devices of the parts.

    Args:
      shards: the placement of each parameter, as `state_shardings` returns it.
      mesh: the devices.
    """
    whole = replicated(mesh)

    @jax.custom_vjp
    def gathered(params: Any) -> Any:
        return jax.lax.with_sharding_constraint(params, whole)

    def forward(params: Any) -> tuple[Any, None]:
        return gathered(params), None

    def backward(_: None, slopes: Any) -> tuple[Any]:
        # By itself, JAX would place gradients as it places the gathered parameters: whole on every device.
        return (jax.lax.with_sharding_constraint(slopes, shards),)

    gathered.defvjp(forward, backward)
    return gathered


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

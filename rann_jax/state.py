"""The training state, carried from step to step."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

# Arrays of a network's variables by path, such as ("params", "fc1", "kernel").
Arrays = Mapping[tuple[str, ...], jax.Array | np.ndarray]


@flax.struct.dataclass
class TrainState:
    """Everything a checkpoint must hold for a resumed run to repeat exactly.

    Attributes:
      step: number of updates done, int32 scalar.
      params: trainable parameters, float32.
      batch_stats: running mean and variance of the BatchNorms, float32.
      ema_params: moving average of params, used for evaluation.
      ema_batch_stats: moving average of batch_stats.
      opt_state: state of the optax transformation.
      seed: uint32 scalar; each step's random key is derived from it and the step number.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    ema_params: Any
    ema_batch_stats: Any
    opt_state: Any  # optax.OptState, whose forward references tools cannot resolve
    seed: jax.Array

    @property
    def step_key(self) -> jax.Array:
        """Random key of the next step: a function of the seed and the step number alone."""
        return jax.random.fold_in(jax.random.key(self.seed), self.step)

    @property
    def ema_variables(self) -> dict[str, Any]:
        """The moving average of weights and statistics, in the form that `model.apply` takes."""
        return {"params": self.ema_params, "batch_stats": self.ema_batch_stats}


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    features: Any,
    seed: int,
    given: Arrays | None = None,
) -> TrainState:
    """Return a fresh state, including the averages. Jittable.

    Args:
      model: the network.
      tx: the optimiser.
      features: an input of the shape that the network takes: (B, F, T), or a dict of arrays.
      seed: seed of the random weights.
      given: weights and statistics to start from instead of random ones.
    """
    random = flatten_dict(model.init(jax.random.key(seed), features))
    variables = unflatten_dict({path: (given or {}).get(path, leaf) for path, leaf in random.items()})
    params, batch_stats = variables["params"], variables["batch_stats"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        # Copies: training donates the state's buffers, and one buffer cannot be donated twice.
        ema_params=jax.tree.map(jnp.copy, params),
        ema_batch_stats=jax.tree.map(jnp.copy, batch_stats),
        opt_state=tx.init(params),
        seed=jnp.asarray(seed, jnp.uint32),
    )


def all_finite(tree: Any) -> jax.Array:
    """Return a bool scalar: whether all floating-point values in a tree of arrays are finite."""
    # One reduction per shape: the averages and moments of a RANN-8x4-6 are 517 arrays of only 28 shapes.
    by_shape: dict[tuple[int, ...], list[jax.Array]] = {}
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            by_shape.setdefault(leaf.shape, []).append(jnp.isfinite(leaf))
    return jnp.stack([functools.reduce(jnp.logical_and, same).all() for same in by_shape.values()]).all()

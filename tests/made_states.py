"""A training state of one small array, and what is saved beside it."""

import jax
import jax.numpy as jnp

from rann_jax.state import TrainState

BUNDLE = {"labels": ["dog", "cat"], "config": {"t_c": 4.0}, "fingerprints": {"train": "ab"}}


def state_at(step: int) -> TrainState:
    """Return a state after so many steps, with them as its weights."""
    params = {"w": jnp.full((3,), step, jnp.float32)}
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats={},
        ema_params=params,
        ema_batch_stats={},
        opt_state=(),
        seed=jnp.asarray(5, jnp.uint32),
    )


def like() -> TrainState:
    """Return the shapes and the device of such a state."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: state_at(0))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)

"""The training step as a compiled program on a mesh."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rann_jax import distributed
from rann_jax.devices.compiler import suited, xla_options
from rann_jax.devices.sharding import gathering
from rann_jax.experiment import Experiment
from rann_jax.steps import make_train_step


def training_mesh(experiment: Experiment) -> Mesh:
    """Return the mesh of all devices. This needs no data, so it also serves to check a config early.

    Raises:
      ConfigError: the devices cannot share the batches or the arrays as the config says.
    """
    config = experiment.config
    mesh = distributed.data_mesh(config.sharding.model)
    distributed.check_parts(config, mesh)
    distributed.check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    experiment.shardings(mesh)
    return mesh


def sharded_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Wrapped:
    """Return the jitted training step on a mesh: (state, batch) -> (state, metrics).

    The step donates the buffers of the state that it is given.

    Raises:
      ConfigError: a rule of config.sharding cannot be applied.
    """
    config, device = experiment.config, mesh.devices.flat[0]
    whole = distributed.replicated(mesh)
    step = make_train_step(
        suited(experiment.model, device),
        experiment.front_end,
        experiment.tx,
        task=config.task,
        ema_decay=config.ema_decay,
        augment=experiment.augment,
        freezing=experiment.freezing,
        accumulate=config.accumulate,
        batch_norm_groups=config.batch_norm_groups,
        whole=gathering(experiment.shardings(mesh).params, mesh),
    )
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(experiment.shardings(mesh), whole),
        compiler_options=xla_options(device),
    )


def compiled_step(experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """Compile `sharded_step` ahead of time, without a batch."""
    config, place = experiment.config, distributed.split_batch(mesh)
    audio = (config.batch_size, experiment.crop_samples)
    labels = (config.batch_size, config.num_classes)
    batch = {
        "audio": jax.ShapeDtypeStruct(audio, jnp.int16, sharding=place),
        "labels": jax.ShapeDtypeStruct(labels, jnp.float32, sharding=place),
    }
    return sharded_step(experiment, mesh).lower(experiment.sharded_state(mesh), batch).compile()

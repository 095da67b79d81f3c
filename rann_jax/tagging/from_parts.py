"""A trained model from parts that were made without a config: network, weights, front end, class names.

The config that a checkpoint needs is derived from the parts, and network and front end are built from it
again. So a model that is put together here is the one that is loaded later.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import unfreeze
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from input_pipeline.source import check_classes
from rann_jax import models
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment, build
from rann_jax.features.front_end import FRONT_ENDS
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.options import did_you_mean
from rann_jax.saved.trained import Trained
from rann_jax.tasks import TASKS


def put_together(
    model: nn.Module, variables: Mapping[str, Any], front_end: FrontEnd, labels: Sequence[str], task: str
) -> Trained:
    """Return a trained model; arguments and errors are those of `Tagger.of`."""
    if task not in TASKS:
        raise ConfigError(f"task={task!r}: use one of {', '.join(TASKS)}" + did_you_mean(str(task), TASKS))
    labels = tuple(map(str, labels))
    check_classes(labels, "labels")
    config = _config(model, front_end, labels, task)
    try:
        experiment = build(config)
    except ConfigError as error:
        raise ConfigError(f"model and front_end do not fit each other: {error}") from error
    for name, needed in models.attributes(experiment.model).items():
        given = getattr(model, name)
        if given != needed:
            raise ConfigError(f"model: its {name} is {given}, but front end {front_end.name} needs {needed}")
    return Trained(experiment, _placed(variables, experiment), labels)


def _config(model: nn.Module, front_end: FrontEnd, labels: Sequence[str], task: str) -> ConfigDict:
    """Return the config of an experiment with this model, and the defaults for all that concerns training."""
    if FRONT_ENDS.get(getattr(front_end, "name", "")) is not type(front_end):
        raise ConfigError(f"front_end: {front_end!r} is not from features.front_end: make it there")
    try:
        network = _plain(models.naming(model, seconds=front_end.seconds))
    except ValueError as error:
        raise ConfigError(f"model: {error}: make it there") from error
    if model.num_classes != len(labels):
        raise ConfigError(f"labels: {len(labels)} names, but the model has {model.num_classes} classes")
    config = _base()
    config.task, config.num_classes = task, len(labels)
    feature = _plain(dataclasses.asdict(front_end))
    config.sample_rate, config.t_c = feature.pop("sample_rate"), feature.pop("seconds")
    config.feature = {"name": front_end.name, **feature}
    network.pop("wavegram_shape", None)  # the front end prescribes it
    config.dtype = jnp.dtype(network.pop("dtype", jnp.float32)).name
    config.model.update(network)
    config.augment = {}
    config.dataset = {"name": "folder"}  # without data_dir: no data is known
    return config


def _base() -> ConfigDict:
    try:
        # Imported only here: everything else works in a project that has a package `configs` of its own.
        from configs.base import base
    except ImportError as error:
        raise ConfigError(
            f"configs: another package of this name hides rann_jax's ({error}): rename it, or run elsewhere"
        ) from error
    return base()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with NumPy's scalars as Python's, which JSON can hold."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def _placed(variables: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Return copies of the variables in float32, on the first device.

    They are copies because a training step may donate the buffers of its own.

    Raises:
      ConfigError: they are not the network's.
    """
    form = "give {'params': ..., 'batch_stats': ...}, as model.init returns them"
    if not isinstance(variables, Mapping):
        raise ConfigError(f"variables: they are of type {type(variables).__name__}: {form}")
    plain = unfreeze(dict(variables))
    if told := experiment.difference(flatten_dict(plain)):
        raise ConfigError(f"variables: {told}: {form}")
    device = jax.local_devices()[0]
    # NumPy copies at once, `jnp.array` only when the device is free: the caller may change the arrays.
    return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf, np.float32), device), plain)

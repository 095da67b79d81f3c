"""Check a config and build its front end, network and optimiser. No data is touched yet."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, Sharding
from ml_collections import ConfigDict

from rann_jax import models, optimizer
from rann_jax.augment import Policy, policy
from rann_jax.devices.compiler import xla_options
from rann_jax.devices.sharding import state_shardings
from rann_jax.errors import ConfigError
from rann_jax.features.front_end import front_end
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.options import check
from rann_jax.schema import check_complete, check_values
from rann_jax.state import Arrays, TrainState, create_state
from rann_jax.training.freezing import Freezing


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What training and evaluation share.

    Attributes:
      config: the complete config, as from `configs/`.
      front_end: (B, crop_samples) float32 -> feature images (B, F, T), or a dict of inputs.
      model: output of the front end -> logits (B, num_classes).
      tx: the optimiser.
      augment: the augmentations of training.
      freezing: the parameters that are not trained.
    """

    config: ConfigDict
    front_end: FrontEnd
    model: nn.Module
    tx: optax.GradientTransformation
    augment: Policy
    freezing: Freezing

    @property
    def crop_samples(self) -> int:
        """Number of samples in a crop of t_c seconds, which the network sees."""
        return self.front_end.n_samples

    @property
    def image_shape(self) -> tuple[int, int]:
        """Size (F, T) of the feature image, computed or learned."""
        return self.front_end.n_bins, self.front_end.n_frames

    @functools.cached_property
    def shapes(self) -> TrainState:
        """The state as `jax.ShapeDtypeStruct`s; traced once, without allocating anything."""
        return jax.eval_shape(self.initial_state)

    @property
    def arrays(self) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
        """Weights and statistics of the network, by path, as `jax.ShapeDtypeStruct`s."""
        return flatten_dict({"params": self.shapes.params, "batch_stats": self.shapes.batch_stats})

    def difference(self, given: Arrays, *, but: str = "") -> str:
        """Return the first way in which arrays do not fit the network; '' if they fit.

        Args:
          given: weights and statistics by path.
          but: a layer whose shapes may differ.
        """
        ours = {path: leaf.shape for path, leaf in self.arrays.items()}
        theirs = {path: np.shape(array) for path, array in given.items()}
        differing = [
            path
            for path in sorted(ours.keys() | theirs.keys())
            if ours.get(path) != theirs.get(path)
            and (path[1:2] != (but,) or path not in ours or path not in theirs)
        ]
        if not differing:
            return ""
        path, name = differing[0], self.config.model.name
        there, here = theirs.get(path, "absent"), ours.get(path, "absent")
        more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
        return f"{'/'.join(path)} is {there} there, {here} in {name}{more}"

    def initial_state(self, given: Arrays | None = None) -> TrainState:
        """Return a fresh state from config.seed and the arrays `given`; see `create_state`. Jittable."""
        clip = jax.ShapeDtypeStruct((1, self.crop_samples), jnp.float32)
        features = jax.tree.map(jnp.zeros_like, jax.eval_shape(self.front_end, clip))
        return create_state(self.model, self.tx, features, self.config.seed, given)

    def create(self, given: Arrays | None = None, shardings: Any = None) -> TrainState:
        """Compute `initial_state`, with each array placed by `shardings` (by default on one device).

        It runs only once, so on a CPU it is compiled with few of LLVM's optimisations to save compile time
        (measured for a RANN-4x4-1: 5 seconds of processor time instead of 17, and the same bits).
        """
        quickly = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
        options = xla_options() | quickly
        return jax.jit(self.initial_state, out_shardings=shardings, compiler_options=options)(given)

    def abstract_state(self, sharding: Sharding) -> TrainState:
        """Return the state's shapes, types and placement, for restoring, without allocating anything."""
        return self._placed(jax.tree.map(lambda leaf: sharding, self.shapes))

    def sharded_state(self, mesh: Mesh) -> TrainState:
        """Return the same, with the arrays placed by `shardings`.

        Raises:
          ConfigError: a rule cannot be applied.
        """
        return self._placed(self.shardings(mesh))

    def shardings(self, mesh: Mesh) -> Any:
        """Return the state's tree of placements on the mesh, by the rules of `config.sharding`.

        Raises:
          ConfigError: a rule cannot be applied.
        """
        rules = self.config.get("sharding", {}).get("rules", ())
        return state_shardings(self.shapes, mesh, rules)

    def _placed(self, shardings: Any) -> TrainState:
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            self.shapes,
            shardings,
        )


def build(config: ConfigDict) -> Experiment:
    """Build an experiment, and trace it once, so that errors show before data is read.

    Raises:
      ConfigError: a key is missing or has an invalid value; the message names the key.
    """
    check_complete(config)
    check_values(config)
    for option, key in (("seconds", "t_c"), ("sample_rate", "sample_rate")):
        if option in config.feature:
            raise ConfigError(
                f"config.feature.{option}: the whole run has the same one: set config.{key} instead"
            )
    with _blaming("config.feature, config.t_c or config.sample_rate", {"seconds": "t_c"}):
        features = front_end(sample_rate=config.sample_rate, seconds=config.t_c, **config.feature.to_dict())
    with _blaming("config.model"):
        model = models.create(
            num_classes=config.num_classes,
            dtype=jnp.dtype(config.dtype),
            **config.model.to_dict(),
            **features.network_options,
        )
        name = config.model.name
        prescribed = models.crop_seconds(name)
    if prescribed not in (None, config.t_c):
        raise ConfigError(
            f"config.model.name={name} is for crops of {prescribed:g} s, but config.t_c={config.t_c:g}: "
            "make them equal"
        )
    options = config.optimizer.to_dict()
    with _blaming("config.optimizer"):
        check(
            optimizer.adam,
            options,
            of="the optimizer",
            also={"frozen": tuple},
            but=("total_steps", "groups"),
        )
        freezing = Freezing(models.head(name), tuple(options.pop("frozen", ())))
        if freezing.patterns or options.get("head_learning_rate") is not None:
            options["groups"] = freezing.groups
        tx = optimizer.adam(total_steps=config.total_steps, **options)
    with _blaming("config.augment"):
        augment = policy(
            config.augment.to_dict(), sample_rate=config.sample_rate, total_steps=config.total_steps
        )
        _trace(augment, features, config.num_classes)
    experiment = Experiment(config, features, model, tx, augment, freezing)
    with _blaming("config.t_c"):
        params = experiment.shapes.params
    with _blaming("config.optimizer"):
        freezing.check(params)
    return experiment


def data_options(config: ConfigDict) -> dict[str, Any]:
    """Return the arguments for `input_pipeline.prepare` that a config gives."""
    return {
        "data_dir": config.data_dir,
        "prepared_dir": config.prepared_dir,
        "sample_rate": config.sample_rate,
        **config.get("prepare", ConfigDict()).to_dict(),  # absent in runs of older versions
        **config.dataset.to_dict(),
    }


def check_labels(config: ConfigDict, labels: Sequence[str]) -> None:
    """Raise ConfigError unless the data has as many classes as the config says."""
    if len(labels) != config.num_classes:
        raise ConfigError(
            f"config.num_classes={config.num_classes}, but data set {config.dataset.name} has "
            f"{len(labels)} classes: set --config.num_classes={len(labels)}"
        )


def _trace(augment: Policy, features: FrontEnd, num_classes: int) -> None:
    """Raise ValueError if the augmentations do not suit the crops or the front end's images."""

    def augmented(audio: jax.Array, labels: jax.Array) -> Any:
        key = jax.random.key(0)
        audio, labels = augment.on_audio(key, audio, labels)
        return augment.on_features(key, features(audio), labels)

    jax.eval_shape(
        augmented,
        jax.ShapeDtypeStruct((2, features.n_samples), jnp.float32),
        jax.ShapeDtypeStruct((2, num_classes), jnp.float32),
    )


@contextmanager
def _blaming(key: str, renamed: Mapping[str, str] = {}) -> Iterator[None]:
    """Turn a builder's error into a ConfigError that names the config key.

    Args:
      key: the key, or several.
      renamed: arguments of the builder that have other names in the config, with these.
    """
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, MemoryError) as error:
        told = str(error)
        for argument, name in renamed.items():
            told = re.sub(rf"\b{argument}=", f"{name}=", told)
        raise ConfigError(f"{key}: {told}") from error

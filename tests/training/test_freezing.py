"""Frozen parameters and statistics stay bit-identical; the last layer has its own rate; AMSGrad."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict

from rann_jax import models, optimizer
from rann_jax.models import panns, rann
from rann_jax.models.norm import BatchNorm
from rann_jax.state import create_state
from rann_jax.steps import make_train_step
from rann_jax.training.freezing import Freezing
from tests.small_network import IMAGES, Small

LABELS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]


def trained(patterns: tuple[str, ...], steps: int = 3):
    """Train some steps; return the states before and after, and the losses."""
    freezing = Freezing("fc2", patterns)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-2, total_steps=steps, groups=freezing.groups)
    state = before = jax.jit(lambda: create_state(Small(), tx, jnp.asarray(IMAGES), seed=0))()
    freezing.check(state.params)
    step = jax.jit(
        make_train_step(
            Small(), lambda images: images, tx, task="classification", ema_decay=0.9, freezing=freezing
        )
    )
    losses = []
    for _ in range(steps):
        state, metrics = step(state, {"audio": IMAGES, "labels": LABELS})
        losses.append(float(metrics["loss"]))
    return before, state, losses


def changed(before, after) -> set[str]:
    """Return the names of the arrays in which two trees differ."""
    a, b = flatten_dict(before, sep="/"), flatten_dict(after, sep="/")
    assert a.keys() == b.keys()
    return {name for name in a if np.any(np.asarray(a[name]) != np.asarray(b[name]))}


@pytest.mark.fast
def test_frozen_layers_keep_parameters_and_statistics():
    before, after, _ = trained(("*0", "norm1/scale", "dense2/b*"))
    moving = {"dense1/kernel", "norm1/bias", "dense2/kernel", "norm2/scale", "norm2/bias"}
    # A bias in front of a BatchNorm with batch statistics has only rounding as its gradient: do not check it.
    assert changed(before.params, after.params) - {"dense1/bias"} == moving | {"fc2/kernel", "fc2/bias"}
    # Only the scale of norm1 is frozen, so its statistics still follow the batches.
    followed = {f"norm{layer}/{name}" for layer in (1, 2) for name in ("mean", "var")}
    assert changed(before.batch_stats, after.batch_stats) == followed
    assert changed(before.ema_batch_stats, after.ema_batch_stats) == followed
    assert changed(before.ema_params, after.ema_params) == changed(before.params, after.params)
    # Adam keeps two moments for each trainable parameter and none for the frozen ones.
    sizes = {name: leaf.size for name, leaf in flatten_dict(before.params, sep="/").items()}
    trainable = sum(sizes[name] for name in moving | {"dense1/bias", "fc2/kernel", "fc2/bias"})
    assert sum(leaf.size for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim) == 2 * trainable


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return BatchNorm(name="norm1")(x, train=train)


class Nested(nn.Module):
    """Two blocks whose normalisations have the same name."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for name in ("block0", "block1"):
            x = Block(name=name)(x, train)
        return nn.Dense(2, name="fc2")(x)


@pytest.mark.fast
def test_statistics_of_a_frozen_block_are_kept_and_those_of_others_follow():
    x = np.random.default_rng(0).normal(3, 2, (8, 4)).astype(np.float32)
    variables = Nested().init(jax.random.key(0), x)
    with Freezing("fc2", ("block0",)).inference_where_frozen(variables["params"]):
        _, moved = Nested().apply(variables, x, train=True, mutable=["batch_stats"])
    followed = {f"block1/norm1/{name}" for name in ("mean", "var")}
    assert changed(variables["batch_stats"], moved["batch_stats"]) == followed


@pytest.mark.fast
def test_a_frozen_trunk_is_a_linear_probe_of_the_embeddings():
    """Compared with float64 multinomial regression on embeddings in inference mode, without dropout."""
    before, after, losses = trained(("trunk",))
    assert changed(before.params, after.params) == {"fc2/kernel", "fc2/bias"}
    assert not changed(before.batch_stats, after.batch_stats)
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    x = np.asarray(Small().apply(variables, IMAGES, method="embed"), np.float64)
    ones = np.c_[x, np.ones(len(x))]
    weights = np.r_[np.asarray(before.params["fc2"]["kernel"], np.float64), np.zeros((1, 3))]
    m = v = np.zeros_like(weights)
    for step, loss in enumerate(losses, start=1):
        logits = ones @ weights
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert loss == pytest.approx(-(LABELS * np.log(p)).sum(axis=1).mean(), rel=1e-5)
        gradient = ones.T @ (p - LABELS) / len(x)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weights = weights - 1e-2 * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(after.params["fc2"]["kernel"], weights[:-1], atol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("name", [*panns.NETWORKS, "rann-1x4-1"])
def test_a_frozen_trunk_needs_no_random_key(name):
    """Dropout needs a key: RANN has none; PANNs need one as soon as one layer of the trunk is trained."""
    pann = name in panns.NETWORKS
    network = models.create(name, num_classes=3, **({} if pann else {"blocks_per_stage": 1}))
    x = jax.ShapeDtypeStruct((2, 64, 64), jnp.float32)
    if name.startswith("wavegram"):
        x = {"image": x, "waveform": jax.ShapeDtypeStruct((2, 20480), jnp.float32)}
    variables = jax.eval_shape(network.init, jax.random.key(0), x)

    def train_without_a_key(*frozen):
        freezing = Freezing(panns.HEAD if pann else rann.HEAD, frozen)
        with freezing.inference_where_frozen(variables["params"]):
            apply = functools.partial(network.apply, train=True, mutable=["batch_stats"])
            return jax.eval_shape(apply, variables, x)[0].shape

    assert train_without_a_key("trunk") == (2, 3)
    with pytest.raises(InvalidRngError) if pann else contextlib.nullcontext():
        train_without_a_key("*_block*")


@pytest.mark.fast
def test_the_last_layer_has_its_own_rate():
    """Adam's first step is the rate times the gradient's sign."""
    params = {"fc2": jnp.zeros(3), "fc1": jnp.zeros(3), "stage0": jnp.zeros(3)}
    gradients = jax.tree.map(lambda leaf: leaf + jnp.array([1.0, -2.0, 3.0]), params)
    tx = optimizer.adam(
        schedule="one_cycle",
        learning_rate=1e-3,
        head_learning_rate=2e-2,
        total_steps=10,
        div_factor=10.0,
        groups=Freezing("fc2", ("stage0",)).groups,
    )
    updates, state = jax.jit(tx.update)(gradients, tx.init(params), params)
    sign = np.array([1, -1, 1])
    np.testing.assert_allclose(updates["fc1"], -1e-4 * sign, rtol=1e-5)
    np.testing.assert_allclose(updates["fc2"], -2e-3 * sign, rtol=1e-5)
    np.testing.assert_array_equal(updates["stage0"], 0)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(1e-4)


@pytest.mark.fast
def test_amsgrad_against_float64():
    """PyTorch's documented algorithm corrects the bias after it takes the maximum."""
    rng, rate = np.random.default_rng(0), 1e-2
    tx = optimizer.adam(schedule="constant", learning_rate=rate, total_steps=1, amsgrad=True)
    weights = rng.normal(size=5)
    params = jnp.asarray(weights, jnp.float32)
    state, m, v, v_max = tx.init(params), 0.0, 0.0, 0.0
    update = jax.jit(tx.update)
    for step in range(1, 31):
        gradient = rng.normal(size=5) * np.exp(-step / 5)  # shrinking, so that the maximum matters
        updates, state = update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        v_max = np.maximum(v_max, v)
        weights = weights - rate * m / (1 - 0.9**step) / (np.sqrt(v_max / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(params, weights, rtol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        (("conv9*",), r"frozen='conv9\*' matches no parameter; layers are fc1, fc2"),
        (("fc1", "fc2"), "nothing is left to train"),
    ],
)
def test_impossible_patterns_are_refused(patterns, says):
    params = {"fc1": {"kernel": jnp.zeros(1)}, "fc2": {"kernel": jnp.zeros(1)}}
    with pytest.raises(ValueError, match=says):
        Freezing("fc2", patterns).check(params)

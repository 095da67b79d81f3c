"""Frozen parameters and statistics stay to the bit; the last layer's own rate is what torch makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from rann_jax import models, optimizer
from rann_jax.freezing import Freezing
from rann_jax.state import create_state
from rann_jax.steps import make_train_step

IMAGES = np.random.default_rng(0).normal(size=(4, 64, 32)).astype(np.float32)
BATCH = {"audio": IMAGES, "labels": np.eye(4, 3, dtype=np.float32)}


def identity(images: jax.Array) -> jax.Array:
    return images


def trained(patterns: tuple[str, ...], head_learning_rate: float | None = None, steps: int = 2):
    """States of a narrow CNN14 before and after some steps, and the losses."""
    freezing = Freezing("fc_audioset", patterns)
    model = models.create("cnn14", num_classes=3, width=32)
    tx = optimizer.adam(
        schedule="constant",
        learning_rate=1e-2,
        total_steps=steps,
        head_learning_rate=head_learning_rate,
        groups=freezing.groups,
    )
    state = before = jax.jit(lambda: create_state(model, tx, jnp.asarray(IMAGES), seed=0))()
    step = jax.jit(
        make_train_step(model, identity, tx, task="classification", ema_decay=0.9, freezing=freezing)
    )
    losses = []
    for _ in range(steps):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    return model, before, state, losses


def changed(before, after) -> set[str]:
    """Which arrays of two trees differ."""
    a, b = flatten_dict(before, sep="/"), flatten_dict(after, sep="/")
    assert a.keys() == b.keys()
    return {name for name in a if np.any(np.asarray(a[name]) != np.asarray(b[name]))}


def test_frozen_layers_stay_with_their_statistics():
    patterns = ("bn0", "conv_block[1-4]", "conv_block5/bn1/scale")
    _, before, after, _ = trained(patterns)
    frozen = {"bn0", "conv_block1", "conv_block2", "conv_block3", "conv_block4"}
    params = changed(before.params, after.params)
    assert not {name for name in params if name.split("/")[0] in frozen}
    assert "conv_block5/bn1/scale" not in params
    assert {"conv_block5/bn1/bias", "conv_block5/conv1/kernel", "fc_audioset/kernel"} <= params
    statistics = changed(before.batch_stats, after.batch_stats)
    # A BatchNorm of which only the scale is frozen goes on following the batches.
    assert statistics == {
        f"conv_block{block}/bn{norm}/{name}"
        for block in (5, 6)
        for norm in (1, 2)
        for name in ("mean", "var")
    }
    assert not {name for name in changed(before.ema_params, after.ema_params) if name.split("/")[0] in frozen}
    # Frozen parameters have no moments.
    count = sum(leaf.size for leaf in jax.tree.leaves(after.params)) - Freezing("", patterns).count(
        after.params
    )
    moments = [leaf.size for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
    assert sum(moments) == 2 * count


def test_a_frozen_trunk_is_a_linear_probe_of_the_embeddings(monkeypatch):
    """Multinomial regression on embeddings in inference mode, by hand in float64."""
    monkeypatch.setattr(models.panns, "HEAD_DROPOUT", 0.0)  # before the last layer it would stay
    model, before, after, losses = trained(("trunk",))
    assert changed(before.params, after.params) == {"fc_audioset/kernel", "fc_audioset/bias"}
    assert not changed(before.batch_stats, after.batch_stats)
    variables = {"params": before.params, "batch_stats": before.batch_stats}
    x = np.asarray(model.apply(variables, IMAGES, method="embed"), np.float64)
    kernel = np.asarray(before.params["fc_audioset"]["kernel"], np.float64)
    bias, m, v = np.zeros(3), np.zeros((x.shape[1] + 1, 3)), np.zeros((x.shape[1] + 1, 3))
    ones = np.c_[x, np.ones(len(x))]
    for step, loss in enumerate(losses, start=1):
        logits = x @ kernel + bias
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert loss == pytest.approx(-(BATCH["labels"] * log_p).sum(axis=1).mean(), rel=1e-5)
        weights = BATCH["labels"].sum(axis=1, keepdims=True)  # the fourth image has no class
        gradient = ones.T @ (np.exp(log_p) * weights - BATCH["labels"]) / len(x)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        change = 1e-2 * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        kernel, bias = kernel - change[:-1], bias - change[-1]
    np.testing.assert_allclose(after.params["fc_audioset"]["kernel"], kernel, atol=1e-5)


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
    updates, state = tx.update(gradients, tx.init(params), params)
    sign = np.array([1, -1, 1])
    np.testing.assert_allclose(updates["fc1"], -1e-4 * sign, rtol=1e-5)
    np.testing.assert_allclose(updates["fc2"], -2e-3 * sign, rtol=1e-5)
    np.testing.assert_array_equal(updates["stage0"], 0)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(1e-4)


@pytest.mark.fast
def test_amsgrad_against_float64():
    """PyTorch's documented algorithm: the bias is corrected after the maximum is taken."""
    rng, rate = np.random.default_rng(0), 1e-2
    tx = optimizer.adam(schedule="constant", learning_rate=rate, total_steps=1, amsgrad=True)
    weights = rng.normal(size=5)
    params = jnp.asarray(weights, jnp.float32)
    state, m, v, v_max = tx.init(params), 0.0, 0.0, 0.0
    for step in range(1, 31):
        gradient = rng.normal(size=5) * np.exp(-step / 5)  # shrinks, so that the maximum matters
        updates, state = tx.update(jnp.asarray(gradient, jnp.float32), state, params)
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
def test_patterns_that_cannot_work(patterns, says):
    params = {"fc1": {"kernel": jnp.zeros(1)}, "fc2": {"kernel": jnp.zeros(1)}}
    with pytest.raises(ValueError, match=says):
        Freezing("fc2", patterns).check(params)

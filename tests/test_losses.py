"""Losses against float64 formulas, for mixed labels and extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from rann_jax import losses


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(6, 5))
    labels = rng.dirichlet(np.ones(5), size=6)
    return logits, labels


def on_device(array) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


@pytest.mark.fast
def test_categorical_on_mixed_labels(batch):
    logits, labels = batch
    expected = -(labels * log_softmax(logits, axis=-1)).sum(-1)
    got = losses.categorical_cross_entropy(on_device(logits), on_device(labels))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.fast
def test_binary_on_mixed_labels(batch):
    logits, labels = batch
    p = expit(logits)
    expected = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(-1)
    got = losses.binary_cross_entropy(on_device(logits), on_device(labels))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("loss", [losses.categorical_cross_entropy, losses.binary_cross_entropy])
def test_extreme_logits_stay_finite(loss):
    logits = on_device([[1e4, -1e4], [-1e4, 1e4]])
    labels = on_device([[0, 1], [0, 1]])
    value, gradient = jax.value_and_grad(lambda x: loss(x, labels).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()

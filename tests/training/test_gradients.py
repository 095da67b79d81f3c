"""Batches in parts, against float64 gradients written out by hand and against the network run per part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import distributed
from rann_jax.errors import ConfigError
from rann_jax.training.gradients import accumulated, grouped
from tests.two_blocks import TwoBlocks, get_config

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(12, 3)), RNG.normal(size=12), RNG.normal(size=3)


def plain(w, stats, x, y, key):
    """Return the least-squares loss and a running mean of x."""
    return jnp.square(x @ w - y).mean(), 0.9 * stats + 0.1 * x.mean(axis=0)


def centred(w, stats, x, y, key):
    """Return the same, with x centred over the rows computed together, as in a BatchNorm."""
    return plain(w, stats, x - x.mean(axis=0, keepdims=True), y, key)[0], 0.9 * stats + 0.1 * x.mean(axis=0)


def by_hand(parts, centre):
    """Return loss, statistic and gradient in float64, averaged over (x, y) parts."""
    rows = []
    for x, y in parts:
        z = x - x.mean(axis=0) if centre else x
        residual = z @ W - y
        rows.append((np.square(residual).mean(), 0.1 * x.mean(axis=0), 2 * z.T @ residual / len(y)))
    return [np.mean(column, axis=0) for column in zip(*rows, strict=True)]


def ours(loss, accumulate, groups):
    gradient = jax.jit(accumulated(grouped(loss, groups), accumulate))
    arrays = [jnp.asarray(a, jnp.float32) for a in (W, np.zeros(3), X, Y)]
    (value, stats), slope = gradient(*arrays, jax.random.key(0))
    return value, stats, slope


@pytest.mark.fast
@pytest.mark.parametrize("accumulate", [1, 2, 3, 12])
@pytest.mark.parametrize("groups", [1])
def test_without_batchnorm_parts_equal_the_whole_batch(accumulate, groups):
    for a, b in zip(ours(plain, accumulate, groups), by_hand([(X, Y)], centre=False), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.fast
def test_accumulated_parts_are_normalised_separately():
    parts = [(X[k::3], Y[k::3]) for k in range(3)]
    for a, b in zip(ours(centred, 3, 1), by_hand(parts, centre=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    assert abs(by_hand(parts, centre=True)[0] - by_hand([(X, Y)], centre=True)[0]) > 0.01


@pytest.mark.fast
def test_groups_of_consecutive_rows_are_normalised_separately():
    parts = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    for a, b in zip(ours(centred, 1, 2), by_hand(parts, centre=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.fast
def test_groups_of_accumulated_parts():
    parts = [(X[k::3][half], Y[k::3][half]) for k in range(3) for half in (slice(2), slice(2, 4))]
    for a, b in zip(ours(centred, 3, 2), by_hand(parts, centre=True), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize(("accumulate", "groups"), [(4, 1), (1, 4)])
def test_each_part_draws_its_own_dropout(accumulate, groups):
    """If the parts drew the same number, the mean of its square would be the square of its mean."""

    def drawn(w, stats, x, y, key):
        number = jax.random.uniform(key)
        return plain(w, stats, x, y, key)[0], jnp.stack([number, jnp.square(number)])

    mean, mean_square = ours(drawn, accumulate, groups)[1]
    assert mean_square - jnp.square(mean) > 0.01


def test_batch_norm_per_device():
    """8 groups on 8 devices equal the average of flax on each device's two examples."""
    model = TwoBlocks(num_classes=4)
    images = jnp.asarray(RNG.normal(size=(16, 8, 16)) * np.arange(1, 17)[:, None, None], jnp.float32)
    variables = model.init(jax.random.key(0), images)

    def loss(params, stats, x, labels, key):
        apply = {"params": params, "batch_stats": stats}
        logits, updated = model.apply(apply, x, train=True, mutable=["batch_stats"])
        return jnp.square(logits - labels).mean(), updated["batch_stats"]

    labels = jnp.zeros((16, 4), jnp.float32)
    arguments = (variables["params"], variables["batch_stats"])
    one = jax.jit(loss)
    parts = [one(*arguments, images[k : k + 2], labels[k : k + 2], None) for k in range(0, 16, 2)]
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    mesh = distributed.data_mesh()
    placed = [jax.device_put(a, distributed.split_batch(mesh)) for a in (images, labels)]
    seen = jax.jit(grouped(loss, 8))(*arguments, *placed, jax.random.key(0))
    for a, b in zip(jax.tree.leaves(seen), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    whole = one(*arguments, images, labels, None)
    assert abs(float(whole[0]) - float(seen[0])) > 1e-3 * abs(float(whole[0]))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"accumulate": 2}, r"config.batch_size=8.* 8 devices in config.accumulate=2 parts.* multiple of 16"),
        ({"accumulate": 0}, r"config.accumulate=0"),
        ({"batch_norm_groups": 3}, r"config.batch_norm_groups=3 does not divide the 8 clips"),
        ({"batch_norm_groups": 0}, r"config.batch_norm_groups=0"),
    ],
)
def test_parts_that_do_not_divide_the_batch_are_refused(overrides, says):
    config = get_config()
    config.update(overrides)
    with pytest.raises(ConfigError, match=says):
        distributed.check_parts(config, distributed.data_mesh())

"""Sharded arrays: which rule shards which array how, and that results equal those of whole arrays."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rann_jax import distributed, models, optimizer
from rann_jax.devices.collectives import traffic
from rann_jax.devices.sharding import gathering, state_shardings
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.state import create_state
from rann_jax.training.compiled import sharded_step
from tests.two_blocks import get_config

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KERNELS = (("kernel$", "largest"),)


@pytest.fixture(scope="module")
def abstract():
    model = models.create("rann-0.5x4-1", num_classes=4)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-3, total_steps=4)
    image = jnp.zeros((1, 8, 16), jnp.float32)
    return jax.eval_shape(lambda: create_state(model, tx, image, seed=3))


@pytest.mark.fast
def test_rules_place_parameters_averages_and_moments(abstract):
    mesh = distributed.data_mesh(model=2)
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    placed = state_shardings(abstract, mesh, [("fc2/kernel", 1), *KERNELS])
    adam = placed.opt_state.inner_state[0]
    for tree in (placed.params, placed.ema_params, adam.mu, adam.nu):
        assert tree["fc2"]["kernel"].spec == P(None, "model")  # (128, 4), by the first rule
        assert tree["fc1"]["kernel"].spec == P("model")  # (128, 128), the first of the longest
        assert tree["stage4_block1"]["conv1"]["kernel"].spec == P(None, None, "model")  # (3, 3, 128, 128)
        assert tree["stage1_block0"]["conv1"]["kernel"].spec == P(None, None, None, "model")  # (3, 6, 8, 16)
        assert tree["fc1"]["bias"].spec == P()
    assert placed.step.spec == P()
    kernel = placed.params["stage4_block1"]["conv1"]["kernel"]
    assert kernel.shard_shape((3, 3, 128, 128)) == (3, 3, 64, 128)


@pytest.mark.fast
def test_largest_replicates_an_array_without_a_divisible_axis(abstract):
    placed = state_shardings(abstract, distributed.data_mesh(model=8), [("fc2/bias", "largest")])
    assert placed.params["fc2"]["bias"].spec == P()  # (4,)


@pytest.mark.fast
def test_neighbouring_devices_share_an_array():
    ids = [[device.id for device in row] for row in distributed.data_mesh(model=4).devices]
    assert ids == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.fast
@pytest.mark.parametrize("model", [1, 2])
@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([("no_such", "largest")], "'no_such' applies to no array"),
        ([("fc2/bias", 1)], r"params/fc2/bias, \(4,\), has no axis 1: axes are counted from 0"),
        ([("fc2/bias", -1)], r"params/fc2/bias, \(4,\), has no axis -1"),
        ([("fc1", "largest"), ("(", 0)], r"\('\(', 0\): missing \)"),
        ([("fc1", "widest")], "number or 'largest'"),
        ([("fc1",)], r"\('fc1',\)"),
    ],
)
def test_impossible_rules_are_refused(abstract, model, rules, says):
    """Also where nothing is sharded, so that a mistake shows before the run moves to more devices."""
    with pytest.raises(ConfigError, match=rf"config.sharding.rules: .*{says}"):
        state_shardings(abstract, distributed.data_mesh(model), rules)


@pytest.mark.fast
def test_an_uneven_axis_is_refused_where_it_is_split(abstract):
    rules = [("fc2/bias", 0)]  # (4,)
    with pytest.raises(ConfigError, match=r"axis 0 of params/fc2/bias, \(4,\), cannot be split .* over 8"):
        state_shardings(abstract, distributed.data_mesh(model=8), rules)
    placed = state_shardings(abstract, distributed.data_mesh(), rules)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(placed))


@pytest.mark.fast
@pytest.mark.parametrize("model", [0, 3])
def test_impossible_device_groups_are_refused(model):
    with pytest.raises(ConfigError, match=f"config.sharding.model={model} does not divide the 8 devices"):
        distributed.data_mesh(model)


@pytest.mark.fast
def test_gradients_of_gathered_parameters_are_in_the_parts():
    mesh = distributed.data_mesh(model=4)
    shards = {"kernel": NamedSharding(mesh, P(None, "model")), "bias": NamedSharding(mesh, P())}
    params = {"kernel": jnp.arange(24.0).reshape(3, 8), "bias": jnp.arange(8.0)}
    x = jax.device_put(jnp.arange(48.0).reshape(16, 3), distributed.split_batch(mesh))

    def loss(params, x, gathered):
        whole = gathered(params)
        return jnp.sum(jnp.square(x @ whole["kernel"] + whole["bias"][None]))

    slope = jax.jit(jax.grad(loss), static_argnums=2)
    gradients = slope(jax.device_put(params, shards), x, gathering(shards, mesh))
    assert gradients["kernel"].sharding.shard_shape((3, 8)) == (3, 2)
    assert gradients["bias"].is_fully_replicated
    for a, b in zip(*map(jax.tree.leaves, (gradients, slope(params, x, lambda same: same))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def one_step(model, rules, **overrides):
    config = get_config()
    config.sharding = {"model": model, "rules": rules}
    config.update_from_flattened_dict(overrides)
    experiment, mesh = build(config), distributed.data_mesh(model)
    state = jax.jit(experiment.initial_state, out_shardings=experiment.shardings(mesh))()
    rng = np.random.default_rng(0)
    audio = rng.integers(-(2**15), 2**15, (8, experiment.crop_samples), dtype=np.int16)
    batch = {"audio": audio, "labels": np.eye(10, dtype=np.float32)[:8]}
    batch = distributed.place_batch(batch, mesh)
    step = sharded_step(experiment, mesh).lower(state, batch).compile()
    return *step(state, batch), traffic(step.as_text())


def test_sharded_arrays_give_the_same_step():
    """Of the arrays, only the sharded parameters are gathered, and no activations are."""
    whole, metrics, _ = one_step(1, ())
    parts, metrics_of_parts, sent = one_step(4, KERNELS)
    sharded = [leaf for leaf in jax.tree.leaves(parts.params) if not leaf.is_fully_replicated]
    assert sent["all-gather"].bytes == sum(leaf.nbytes for leaf in sharded)
    assert sent.keys() <= {"all-gather", "all-reduce", "collective-permute", "reduce-scatter"}
    kernel = parts.params["block1"]["conv1"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 3, 2, 8)
    assert float(metrics["loss"]) == pytest.approx(float(metrics_of_parts["loss"]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        # Adam's first step is the learning rate times the gradient's sign, which may be either for zero.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_rematerialised_blocks_give_the_same_step():
    plain, again = (one_step(1, (), **{"model.remat": remat})[0] for remat in (False, True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize(("name", "blocks"), [("rann-0.5x4-1", 20), ("cnn14", 6), ("resnet38", 18)])
def test_every_block_is_rematerialised_under_the_same_names(name, blocks):
    image = jnp.zeros((1, 64, 64), jnp.float32)
    options = {} if name.startswith("rann") else {"width": 32}
    networks = [models.create(name, num_classes=3, remat=remat, **options) for remat in (False, True)]
    first, second = (jax.eval_shape(n.init, jax.random.key(0), image) for n in networks)
    assert jax.tree.structure(first) == jax.tree.structure(second)

    def loss(variables):
        keys = {"dropout": jax.random.key(1)}
        return networks[1].apply(variables, image, train=True, mutable=["batch_stats"], rngs=keys)[0].sum()

    assert len(re.findall(r"= (?:remat2?|checkpoint)\[", str(jax.make_jaxpr(loss)(first)))) == blocks

"""A network that is neither a RANN nor one of PANNs' is trained like them; what it lacks is said plainly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import interop, models
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from tests import two_blocks

pytestmark = pytest.mark.fast


def test_its_last_layer_has_its_own_rate():
    """Adam's first step is the rate times the gradient's sign."""
    config = two_blocks.get_config()
    config.optimizer.schedule, config.optimizer.learning_rate = "constant", 1e-3
    config.optimizer.head_learning_rate = 2e-2
    experiment = build(config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), experiment.shapes.params)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = experiment.tx.update(gradients, experiment.tx.init(params), params)
    np.testing.assert_allclose(updates["fc"]["bias"], -2e-2, rtol=1e-5)
    np.testing.assert_allclose(updates["block1"]["norm1"]["bias"], -1e-3, rtol=1e-5)


def test_its_trunk_is_frozen():
    config = two_blocks.get_config()
    config.optimizer.frozen = ("trunk",)
    experiment = build(config)
    groups = experiment.freezing.groups(experiment.shapes.params)
    assert set(groups) == {"input_norm", "block0", "block1", "fc"}
    for layer, labels in groups.items():
        assert set(jax.tree.leaves(labels)) == {"head" if layer == "fc" else "frozen"}, layer


@pytest.mark.parametrize(
    ("name", "options"), [("rann-0.5x4-1", {"blocks_per_stage": 1}), ("cnn14", {"width": 32})]
)
def test_the_last_layers_multiply_in_full_precision(name, options):
    """Forward and backward; accelerators would otherwise round the factors to TF32 or bfloat16."""
    network = models.create(name, num_classes=3, dtype=jnp.bfloat16, **options)
    image = jnp.zeros((2, 64, 64), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def loss(variables):
        return network.apply(variables, image, train=True, mutable=["batch_stats"], rngs=keys)[0].sum()

    gradient = jax.jit(jax.grad(loss)).lower(jax.eval_shape(network.init, keys, image))
    products = [line for line in gradient.as_text().splitlines() if "stablehlo.dot_general" in line]
    assert (
        len(products) == 2 * 3 - 1
    )  # two layers, each forward and back to both factors; the logits are not needed
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize(
    ("name", "options"), [("rann-0.5x4-1", {"blocks_per_stage": 1}), ("cnn14", {"width": 32})]
)
def test_parameters_and_statistics_are_float32_in_a_program_with_float64(name, options):
    network = models.create(name, num_classes=3, **options)
    image = np.zeros((2, 64, 64), np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with jax.enable_x64(True):
        variables = jax.eval_shape(network.init, keys, image)
        step = partial(network.apply, train=True, mutable=["batch_stats"], rngs=keys)
        logits, moved = jax.eval_shape(step, variables, image)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, logits, moved))} == {"float32"}


@pytest.mark.parametrize("name", ["vgg", "cnn14-8", "two"])
def test_an_unknown_network_has_no_last_layer_and_no_crop(name):
    for asked in (models.head, models.crop_seconds):
        with pytest.raises(ValueError, match=f"^unknown network '{name}': use one of rann-.*, cnn14, "):
            asked(name)


def test_its_cost_is_refused_without_a_length_of_input():
    with pytest.raises(ValueError, match=r"^no usual input of 'two_blocks' is known"):
        models.complexity("two_blocks")


def test_its_weights_are_written_by_path_but_not_read():
    variables = {"params": {"wavegram": {"conv0": {"kernel": np.zeros((3, 1, 4), np.float32)}}}}
    assert list(interop.to_state_dict(variables, "two_blocks")) == ["wavegram.conv0.weight"]
    with pytest.raises(ConfigError, match=r"^weights of two_blocks cannot be read from PyTorch"):
        interop.load_torch({"fc.bias": np.zeros(3, np.float32)}, "two_blocks")

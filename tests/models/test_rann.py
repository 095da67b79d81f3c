"""RANN: the deck's exact counts, shapes, and refused options and inputs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax import distributed, models
from rann_jax.models.rann import ResidualBlock, temporal_strides
from rann_jax.models.remat import rematerialised
from tests.tiny import filled

# The deck's Table XII: name, parameters, multiply-adds in 1e9 with three decimals, last feature map.
TABLE_XII = [
    ("rann-4x4-6", 54_919_313, 23.569, 23_568_788_736, (8, 8)),
    ("rann-8x1-6", 54_435_473, 101.231, 101_230_521_600, (8, 64)),
    ("rann-8x2-6", 54_532_241, 61.745, 61_745_343_744, (8, 32)),
    ("rann-8x4-6", 54_919_313, 47.137, 47_136_582_912, (8, 16)),
    ("rann-8x8-6", 56_467_601, 42.399, 42_399_116_544, (8, 8)),
    ("rann-8x4-5", 38_198_545, 32.743, 32_742_532_480, None),
    ("rann-8x4-4", 24_504_849, 20.964, 20_963_663_360, None),
]


def macs_by_hand(t_c: int, t_m: int, width: int, num_classes: int, blocks: int = 4) -> int:
    """Return the multiply-adds from the layer table alone: output positions times kernel times channels."""
    bins, frames, inputs, total = 128, 128 * t_c, 1, 0
    for stage in range(5):
        channels = 8 * width * 2**stage
        for block in range(blocks):
            x = y = 1
            if stage > 0 and block == 0:
                x, y = 2, 4 if stage <= {1: 0, 2: 1, 4: 2, 8: 3}[t_m] else 2
            bins, frames = bins // x, frames // y
            first, second = (18, 15) if y == 4 else (9, 9)
            total += bins * frames * channels * (inputs * first + channels * second)
            if inputs != channels or (x, y) != (1, 1):
                total += bins * frames * channels * inputs
            inputs = channels
    return total + inputs * inputs + inputs * num_classes


@pytest.mark.fast
@pytest.mark.parametrize(("name", "params", "giga_macs", "macs"), [row[:4] for row in TABLE_XII])
def test_counts_equal_the_deck(name, params, giga_macs, macs):
    cost = models.complexity(name)
    assert cost.params == params
    assert cost.macs == macs
    assert round(cost.macs / 1e9, 3) == giga_macs
    t_c, t_m, width = int(name[5]), int(name[7]), int(name[9])
    assert cost.macs == macs_by_hand(t_c, t_m, width, 527)
    assert cost.flops == 2 * macs
    assert cost.input_shape == (128, 128 * t_c)
    assert cost.seconds == t_c


@pytest.mark.parametrize(("name", "out"), [(row[0], row[4]) for row in TABLE_XII if row[4]])
def test_last_feature_map_has_the_decks_size(name, out):
    model = models.create(name, num_classes=527)
    x = jnp.zeros((1, 128, 128 * int(name[5])), jnp.float32)

    def last_map(key):
        _, state = model.init_with_output(
            key, x, capture_intermediates=lambda module, _: module.name == "stage4_block3"
        )
        return state["intermediates"]["stage4_block3"]["__call__"][0]

    assert jax.eval_shape(last_map, jax.random.key(0)).shape[1:3] == out


@pytest.mark.parametrize("t_m", [1, 2, 4, 8])
@pytest.mark.parametrize(("bins", "width"), [(128, 1), (12, 3), (84, 2), (1, 1)])
def test_any_number_of_bins_and_any_width(t_m, bins, width):
    model = models.create(f"rann-1x{t_m}-{width}", num_classes=5)
    x = jax.ShapeDtypeStruct((2, bins, 128), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert logits.shape == (2, 5)
    norm = variables["params"]["input_norm"]
    assert norm["scale"].shape == norm["bias"].shape == (bins,)


@pytest.mark.fast
def test_bfloat16_keeps_parameters_and_logits_float32():
    model = models.create("rann-1x4-1", num_classes=5, dtype=jnp.bfloat16)
    x = jax.ShapeDtypeStruct((2, 16, 64), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, updated = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]), variables, x
    )
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}


def test_embedding_has_the_size_of_the_last_layers_input():
    model = models.create("rann-1x4-1", num_classes=5)
    x = jax.ShapeDtypeStruct((2, 16, 64), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    embedding = jax.eval_shape(lambda v, x: model.apply(v, x, method="embed"), variables, x)
    assert embedding.shape == (2, 128)


@pytest.mark.fast
def test_bfloat16_maps_are_pooled_in_float32():
    """The embedding is that of float64 from the same last map: average plus maximum, layer, leaky ReLU."""
    model = models.create("rann-1x1-1", num_classes=5, blocks_per_stage=1, dtype=jnp.bfloat16)
    x = jnp.zeros((2, 32, 64))
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), x), 0)
    last_map = jax.random.normal(jax.random.key(1), (2, 2, 4, 128), jnp.bfloat16)

    def given(call, args, kwargs, context):
        return last_map if context.module.name == "stage4_block0" else call(*args, **kwargs)

    with nn.intercept_methods(given):
        found = jax.jit(partial(model.apply, method="embed"))(variables, x)
    wide, layer = np.asarray(last_map, np.float64), variables["params"]["fc1"]
    exact = (wide.mean((1, 2)) + wide.max((1, 2))) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    np.testing.assert_allclose(found, np.where(exact > 0, exact, 0.01 * exact), rtol=0, atol=1e-5)


def test_the_given_image_is_the_first_channel_and_the_learned_one_the_second():
    model = models.create("rann-1x1-1", num_classes=2, blocks_per_stage=1)
    x = {"image": jax.random.normal(jax.random.key(0), (1, 8, 16)), "waveform": jnp.ones((1, 2048))}
    variables = filled(jax.eval_shape(model.init, jax.random.key(0), x), 0)
    image = jax.jit(partial(model.apply, method="image", train=False))
    both, alone = image(variables, x), image(variables, x["image"])
    assert (both.shape, alone.shape) == ((1, 8, 16, 2), (1, 8, 16, 1))
    np.testing.assert_array_equal(both[..., :1], alone)


def test_without_shortcut_norm_the_counts_differ():
    with_norm = models.complexity("rann-8x4-6").params
    without = models.complexity("rann-8x4-6", shortcut_norm=False).params
    assert with_norm - without == 2 * 48 * (1 + 2 + 4 + 8 + 16)


@pytest.mark.fast
@pytest.mark.parametrize("blocks", [1, 6])
def test_other_depths(blocks):
    """A block that keeps channels and length has two 3x3 convolutions and two BatchNorms."""
    deep, deck = (models.complexity("rann-8x4-6", blocks_per_stage=n) for n in (blocks, None))
    assert deep.macs == macs_by_hand(8, 4, 6, 527, blocks)
    block = [2 * 9 * c * c + 4 * c for c in (48, 96, 192, 384, 768)]
    assert deep.params - deck.params == (blocks - 4) * sum(block)


@pytest.mark.fast
@pytest.mark.parametrize(("t_m", "strides"), [(1, (1, 2, 2, 2, 2)), (8, (1, 4, 4, 4, 2))])
def test_temporal_strides(t_m, strides):
    assert temporal_strides(t_m) == strides


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet9000", "unknown network"),
        ("rann-8x3-6", "t_m must be one of"),
        ("rann-8x4", "does not have the form rann-"),
        ("rann-0x4-6", "does not have the form rann-"),
        ("rann-8x4-0", "does not have the form rann-"),
    ],
)
def test_wrong_names_are_refused(name, says):
    with pytest.raises(ValueError, match=says):
        models.create(name, num_classes=5)


@pytest.mark.fast
def test_unknown_option_is_refused():
    with pytest.raises(ValueError, match="colour"):
        models.create("rann-8x4-6", num_classes=5, colour="red")


@pytest.mark.fast
def test_a_stage_without_blocks_is_refused():
    model = models.create("rann-1x4-1", num_classes=5, blocks_per_stage=0)
    with pytest.raises(ValueError, match="blocks_per_stage must be at least 1"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 64), jnp.float32))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("names", "says"),
    [((), "not nothing"), (("image", "picture"), "not .'image', 'picture'."), (("wave",), "not .'wave'.")],
)
def test_inputs_of_other_names_are_refused(names, says):
    model = models.create("rann-1x4-1", num_classes=5)
    x = {name: jax.ShapeDtypeStruct((1, 16, 64), jnp.float32) for name in names}
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.fast
@pytest.mark.parametrize(("strides", "frames"), [((1, 1), 9), ((2, 2), 5)])
def test_a_block_rounds_odd_sizes_up(strides, frames):
    x = jax.ShapeDtypeStruct((1, 7, 9, 3), jnp.float32)
    block = ResidualBlock(4, strides)
    out, _ = jax.eval_shape(lambda key, x: block.init_with_output(key, x, train=False), jax.random.key(0), x)
    assert out.shape == (1, -(-7 // strides[0]), frames, 4)


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(1, 128, 1000), (1, 128, 0), (128, 1024)])
def test_wrong_shapes_are_refused(shape):
    model = models.create("rann-8x4-1", num_classes=5)
    with pytest.raises(ValueError, match=r"multiple of 16|feature images"):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.usefixtures("quickly_compiled")
def test_a_sharded_rematerialised_block_has_the_same_gradients():
    """The images are large enough for the platform's own forms of convolutions, gradients and sums."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 128, 128, 8)), jnp.float32)
    variables = jax.jit(ResidualBlock(8).init, static_argnums=2)(jax.random.key(0), x, True)

    def gradients(block, x):
        def loss(params):
            y, _ = block.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.square(y).mean()

        return jax.jit(jax.grad(loss))(variables["params"])

    shared = jax.device_put(x, distributed.split_batch(distributed.data_mesh()))
    one, all_devices = gradients(ResidualBlock(8), x), gradients(rematerialised(ResidualBlock)(8), shared)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(all_devices), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

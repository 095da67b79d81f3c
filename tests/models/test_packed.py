"""Packed columns, the form for TPUs: the same convolutions, blocks and networks as without packing."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import models
from rann_jax.models.convolution import packed
from rann_jax.models.convolution.xla import plain
from rann_jax.models.panns import NETWORKS, BasicBlock, ConvBlock, average_pool
from rann_jax.models.rann import ResidualBlock

pytestmark = pytest.mark.fast

# Width, kernel, strides, padding of the columns, packed columns in the images and in the result.
CASES = {
    "two columns": (16, (3, 3), (1, 1), (1, 1), (2, 2)),
    "four columns": (16, (3, 3), (1, 1), (1, 1), (4, 4)),
    "all columns": (16, (3, 3), (1, 1), (1, 1), (16, 16)),
    "kernel longer than the packed columns": (16, (3, 5), (1, 1), (2, 2), (2, 2)),
    "a stage's first convolution, stride 4": (32, (3, 6), (2, 4), (1, 1), (4, 2)),
    "a stage's first convolution, stride 2": (16, (3, 3), (2, 2), (1, 1), (4, 2)),
    "to one column": (16, (3, 6), (2, 4), (1, 1), (2, 1)),
    "from one column": (15, (3, 3), (2, 2), (1, 1), (1, 2)),
    "a shortcut": (16, (1, 1), (2, 4), (0, 0), (4, 1)),
    "a shortcut between packed images": (16, (1, 1), (2, 2), (0, 0), (4, 2)),
    "a kernel that does not reach the end": (18, (1, 2), (1, 4), (0, 0), (2, 1)),
    "uneven padding": (16, (2, 4), (1, 1), (3, 0), (2, 2)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolutions_and_their_gradients_equal_xla(case):
    width, size, strides, columns_padding, (before, after) = case
    draw = np.random.default_rng(0).standard_normal
    x = draw((2, 6, width, 3), np.float32)
    kernel = draw((*size, 3, 5), np.float32)
    padding = ((1, 1), columns_padding)

    def ours(x, kernel):
        y = packed.convolution(packed.packed(x, before), kernel, strides, padding, (before, after))
        return packed.unpacked(y, after)

    expected, back = jax.vjp(lambda x, kernel: plain(x, kernel, strides, padding), x, kernel)
    found, our_back = jax.vjp(ours, x, kernel)
    slope = draw(expected.shape, np.float32)
    for mine, theirs in zip((found, *our_back(slope)), (expected, *back(slope)), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("columns", [2, 4])
def test_packing_is_as_exact_in_bfloat16(columns):
    """The RMS error relative to float32, of the result and of the gradients, is that without packing."""
    draw = np.random.default_rng(0).standard_normal
    x, slope = (jnp.asarray(draw((2, 64, 64, 16)), jnp.bfloat16) for _ in range(2))
    kernel = jnp.asarray(draw((3, 3, 16, 16)), jnp.bfloat16).astype(jnp.float32)
    padding = ((1, 1), (1, 1))

    def whole(x, kernel):
        return plain(x, kernel.astype(x.dtype), (1, 1), padding)

    def in_columns(x, kernel):
        y = packed.convolution(packed.packed(x, columns), kernel, (1, 1), padding, (columns, columns))
        return packed.unpacked(y, columns)

    def results(function, kind):
        y, back = jax.vjp(function, x.astype(kind), kernel)
        return [value.astype(jnp.float32) for value in (y, *back(slope.astype(kind)))]

    exact, rounded, ours = (
        results(*pair) for pair in ((whole, jnp.float32), (whole, jnp.bfloat16), (in_columns, jnp.bfloat16))
    )
    for right, theirs, mine in zip(exact, rounded, ours, strict=True):
        assert jnp.linalg.norm(mine - right) <= 1.1 * jnp.linalg.norm(theirs - right)


def test_groups_of_a_batch_are_normalised_apart():
    x = np.random.default_rng(0).standard_normal((2, 2, 6, 16, 3)).astype(np.float32)
    block = ResidualBlock(3)
    variables = block.init(jax.random.key(0), x[0], True)

    def grouped(block, x):
        return jax.vmap(lambda x: block.apply(variables, x, True, mutable=["batch_stats"])[0])(x)

    found = grouped(block.clone(columns=(2, 2)), jax.vmap(lambda x: packed.packed(x, 2))(x))
    expected = jax.vmap(lambda x: packed.packed(x, 2))(grouped(block, x))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_packed_columns_lie_side_by_side():
    x = jnp.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    together = packed.packed(x, 2)
    assert together.shape == (2, 3, 2, 10)
    np.testing.assert_array_equal(together[1, 2, 1], jnp.concatenate([x[1, 2, 2], x[1, 2, 3]]))
    np.testing.assert_array_equal(packed.unpacked(together, 2), x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("size", [(2, 2), (2, 1)])
def test_packed_images_are_pooled_as_others(size, dtype):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 16, 3)), dtype)
    expected = average_pool(x, size)
    found = average_pool(packed.packed(x, 4), size, 4)
    assert found.dtype == dtype
    assert found.shape == expected.shape == (2, 2, 16 // size[1], 3)
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "width", "lanes", "columns"),
    [
        (48, 1024, 128, 2),
        (48, 1024, 256, 4),
        (96, 256, 128, 1),
        (64, 256, 128, 2),
        (8, 1024, 128, 16),
        (8, 1020, 128, 4),
        (8, 15, 128, 1),
        (768, 16, 128, 1),
        (48, 1024, 1, 1),
    ],
)
def test_number_of_columns(channels, width, lanes, columns):
    assert packed.columns_for(channels, width, lanes) == columns


@pytest.mark.parametrize(("stride", "columns"), [(1, (4, 2)), (1, (3, 3))])
def test_columns_that_do_not_fit_are_refused(stride, columns):
    x, kernel = jnp.zeros((1, 4, 4, 12)), jnp.zeros((3, 3, 12 // columns[0], 2))
    with pytest.raises(ValueError, match=r"columns packed as \(., .\) do not fit stride 1 and a result"):
        packed.convolution(x, kernel, (1, stride), ((1, 1), (0, 0)), columns)


@pytest.mark.parametrize(
    ("channels", "strides", "columns"), [(3, (1, 1), (2, 2)), (5, (2, 4), (4, 2)), (5, (2, 4), (4, 1))]
)
def test_a_block_equals_the_block_without_packing(channels, strides, columns):
    x = np.random.default_rng(0).standard_normal((2, 6, 16, 3)).astype(np.float32)
    whole = ResidualBlock(channels, strides=strides)
    variables = whole.init(jax.random.key(0), x, True)
    expected, moved = whole.apply(variables, x, True, mutable=["batch_stats"])
    block = whole.clone(columns=columns)
    found, our_moved = block.apply(variables, packed.packed(x, columns[0]), True, mutable=["batch_stats"])
    np.testing.assert_allclose(packed.unpacked(found, columns[1]), expected, rtol=0, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), our_moved, moved)


# Up to 16 columns are packed; in the second case the frames of the later stages are too odd for it.
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize(
    ("name", "shape", "form"),
    [
        ("rann-2x4-3", (2, 16, 64), {"lanes": 128}),
        ("rann-2x1-1", (2, 16, 36), {"lanes": 256, "remat": True}),
    ],
)
def test_a_network_equals_the_network_without_packing(name, shape, form):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        network = models.create(name, num_classes=4, blocks_per_stage=1, dtype=jnp.float64)
        assert_equal_forms(network, network.clone(**form), np.random.default_rng(0).standard_normal(shape))


@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize(
    "block",
    [ConvBlock(3), ConvBlock(3, (2, 1)), BasicBlock(4), BasicBlock(3, stride=2)],
    ids=["pooled", "pooled in time", "residual", "residual and pooled"],
)
def test_a_block_of_panns_equals_the_block_without_packing(block):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x = np.random.default_rng(0).standard_normal((2, 6, 16, 4))
        block = block.clone(dtype=jnp.float64)
        assert_equal_forms(block, block.clone(columns=4), x)


# With at least 2 channels and 16 lanes, blocks pack 8 columns, then 4 and 2.
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("name", NETWORKS)
def test_panns_equal_those_without_packing(name):
    draw = np.random.default_rng(0).standard_normal
    x: Any = draw((2, 64, 40))
    width = 32
    if name == "wavegram_logmel_cnn14":
        x, width = {"image": x, "waveform": draw((2, 40 * 320))}, 4
    network = models.create(name, num_classes=4, width=width)
    variables = jax.jit(network.init)(jax.random.key(0), x)

    def results(model):
        rngs = {"dropout": jax.random.key(1)}
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)

    expected, found = (
        jax.jit(results, static_argnums=0)(model) for model in (network, network.clone(lanes=16))
    )
    # The last layers normalise few values, which magnifies rounding.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-4), found, expected)


def assert_equal_forms(network, other, x):
    """Check that two forms have equal variables, results, statistics and gradients.

    In float64, as otherwise rounding turns the signs of some activations, and with them their slopes.
    """
    variables = network.init(jax.random.key(0), x, train=False)
    assert jax.eval_shape(partial(other.init, train=False), jax.random.key(0), x) == jax.eval_shape(
        lambda: variables
    )

    def values(model):
        def loss(params):
            given = {**variables, "params": params}
            rngs = {"dropout": jax.random.key(1)}
            logits, moved = model.apply(given, x, train=True, mutable=["batch_stats"], rngs=rngs)
            return jnp.square(logits).sum(), (logits, moved)

        (_, training), slopes = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return training, model.apply(variables, x, train=False), slopes

    expected, found = (jax.jit(values, static_argnums=0)(model) for model in (network, other))
    for mine, theirs in zip(found, expected, strict=True):
        largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
        close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * largest)
        jax.tree.map(close, mine, theirs)

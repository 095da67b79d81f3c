"""CNN14, ResNet38, Wavegram-Logmel-CNN: exact parameter and operation counts, shapes, and refused inputs."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax import complexity, models
from rann_jax.features import front_end
from rann_jax.models.panns import NETWORKS, ConvBlock

pytestmark = pytest.mark.fast

# True multiply-adds for 10 s in 1e9, including 1.0517 for the STFT (counted by hand from the layers).
TRUE_GIGA_MACS = {"cnn14": 21.094, "resnet38": 24.443, "wavegram_logmel_cnn14": 26.717}

# How many layers drop values at each rate, as in the published code: 0.2 after a block, 0.1 within a residual
# block, 0.5 before and after the embedding.
DROPOUT = {
    "cnn14": {0.2: 6, 0.5: 2},
    "resnet38": {0.2: 3, 0.1: 16, 0.5: 2},
    "wavegram_logmel_cnn14": {0.2: 6, 0.5: 2},
}


def inputs(name: str):
    made = front_end("panns_log_mel+wavegram", 32000, 10.0, 100)
    both = jax.eval_shape(made, jax.ShapeDtypeStruct((2, 320_000), jnp.float32))
    return both if name.startswith("wavegram") else both["image"]


@pytest.mark.parametrize("name", sorted(complexity.TABLE_XII))
def test_the_decks_table_in_the_decks_units(name):
    params, multi_adds = complexity.TABLE_XII[name]
    cost = models.complexity(name)
    assert cost.params == params
    counted = cost.macs if name.startswith("rann-") else cost.published_flops
    assert round(counted / 1e9, 3) == multi_adds


@pytest.mark.parametrize("name", sorted(TRUE_GIGA_MACS))
def test_true_multiply_adds(name):
    cost = models.complexity(name)
    assert round((cost.macs + cost.stft_macs) / 1e9, 3) == TRUE_GIGA_MACS[name]
    assert round(cost.stft_macs / 1e9, 4) == 1.0517
    assert cost.input_shape == (64, 1001)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_logits_and_embedding(name):
    model = models.create(name, num_classes=7, dtype=jnp.bfloat16)
    x = inputs(name)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, embedding = jax.eval_shape(
        lambda v, x: (model.apply(v, x), model.apply(v, x, method="embed")), variables, x
    )
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert (embedding.shape, embedding.dtype) == ((2, 2048), jnp.float32)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("train", [True, False])
def test_dropout_has_the_published_rates_in_training_only(name, train):
    seen = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and not context.module.deterministic:
            seen.append(context.module.rate)
        return call(*args, **kwargs)

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with nn.intercept_methods(record):
        init = functools.partial(models.create(name, num_classes=7).init, train=train)
        jax.eval_shape(init, keys, inputs(name))
    assert collections.Counter(seen) == (DROPOUT[name] if train else {})


def test_kernels_start_uniform_within_xaviers_bound():
    """The bound is the root of 6 / (inputs + outputs), counted over the nine positions of the kernel."""

    @jax.jit
    def kernel(key):
        return ConvBlock(16).init(key, jnp.zeros((1, 4, 4, 16)), False)["params"]["conv2"]["kernel"]

    drawn, bound = kernel(jax.random.key(0)), np.sqrt(6 / (9 * (16 + 16)))
    assert 0.98 * bound < np.abs(drawn).max() <= bound
    assert np.std(drawn) == pytest.approx(bound / np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_wrong_input_is_refused(name):
    x = {"waveform": jax.ShapeDtypeStruct((1, 320_000), jnp.float32)}
    with pytest.raises(ValueError, match="panns_log_mel"):
        jax.eval_shape(models.create(name, num_classes=7).init, jax.random.key(0), x)


@pytest.mark.parametrize(("bins", "width"), [(40, 1), (130, 1), (64, 16)])
def test_bins_that_do_not_match_the_wavegram_are_refused(bins, width):
    model = models.create("wavegram_logmel_cnn14", num_classes=7, width=width)
    x = {"image": jnp.ones((1, bins, 64)), "waveform": jnp.ones((1, 6400))}
    with pytest.raises(
        ValueError, match=f"bins, {bins // 2}, which must divide its {128 // width} rows: use n_bins"
    ):
        jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.parametrize("name", ["cnn14", "resnet38"])
@pytest.mark.parametrize(("bins", "frames"), [(31, 64), (64, 31)])
def test_images_too_small_for_the_pooling_are_refused(name, bins, frames):
    """The mean over no bins would be NaN."""
    model = models.create(name, num_classes=7, width=16)
    least, x = (jax.ShapeDtypeStruct((1, *size), jnp.float32) for size in [(32, 32), (bins, frames)])
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), least)
    assert logits.shape == (1, 7)
    with pytest.raises(ValueError, match=f"these have {bins} bins and {frames} frames"):
        jax.eval_shape(model.init, jax.random.key(0), x)


def test_the_program_prints_the_table(capsys):
    assert complexity.main(["cnn14", "rann-8x4-6"]) == 0
    out = capsys.readouterr().out
    assert "80,753,615" in out
    assert "42.220 GFLOPs" in out
    assert "47.137 GMACs" in out


def test_the_program_refuses_an_unknown_name(capsys):
    assert complexity.main(["vgg"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown network 'vgg'")


@pytest.mark.fast
def test_the_program_refuses_an_invalid_number_of_classes(capsys):
    for number in ("0", "-5"):
        assert complexity.main(["rann-4x4-1", "--num-classes", number]) == 2
        assert capsys.readouterr().err == f"error: --num-classes={number}: it must be at least 1\n"

"""CNN14, ResNet38, Wavegram-Logmel-CNN: exact parameter and operation counts, shapes, and refused inputs."""

import jax
import jax.numpy as jnp
import pytest

from rann_jax import complexity, models
from rann_jax.features import front_end
from rann_jax.models.panns import NETWORKS

pytestmark = pytest.mark.fast

# True multiply-adds for 10 s in 1e9, including 1.0517 for the STFT (counted by hand from the layers).
TRUE_GIGA_MACS = {"cnn14": 21.094, "resnet38": 24.443, "wavegram_logmel_cnn14": 26.717}


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
        assert complexity.main(["rann-4x4-1", "--num_classes", number]) == 2
        assert capsys.readouterr().err == f"error: --num_classes={number}: it must be at least 1\n"

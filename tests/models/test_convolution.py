"""Our forms of convolutions for CPUs and GPUs, against XLA's, JAX's gradients of them, and PyTorch's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax.models.convolution import Convolution, added, convolved, gpu
from rann_jax.models.convolution.cpu import columns_at_a_time
from rann_jax.models.convolution.xla import plain

pytestmark = pytest.mark.fast

# Height, width, input and output channels, kernel, strides, padding.
CASES = {
    "8 to 8": ((6, 16), 8, 8, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "16 to 16": ((6, 16), 16, 16, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "16 to 16, kernel 5 long": ((6, 16), 16, 16, (3, 5), (1, 1), ((1, 1), (2, 2))),
    "odd width": ((7, 15), 8, 8, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "one input channel": ((6, 16), 1, 16, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "two input channels": ((6, 16), 2, 8, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "one channel, uneven padding": ((6, 15), 1, 8, (3, 4), (1, 1), ((0, 2), (3, 1))),
    "few channels, uneven padding": ((6, 15), 4, 8, (3, 4), (1, 1), ((0, 2), (3, 1))),
    "strides of a stage": ((8, 16), 16, 32, (3, 6), (2, 4), ((1, 1), (1, 1))),
    "strides, sizes that they do not divide": ((7, 18), 8, 16, (3, 6), (2, 4), ((1, 1), (1, 1))),
    "strides of 2": ((9, 15), 16, 32, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "strides longer than the kernel": ((9, 16), 16, 32, (1, 1), (2, 4), ((0, 0), (0, 0))),
    "strides, uneven padding": ((11, 16), 4, 4, (5, 4), (3, 2), ((2, 1), (0, 3))),
    "many channels": ((6, 16), 32, 48, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "more channels": ((6, 16), 48, 64, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "one channel, one position": ((6, 16), 1, 16, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "two channels, one position": ((6, 16), 2, 16, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "one position, padded": ((6, 16), 1, 16, (1, 1), (1, 1), ((1, 0), (0, 1))),
    "one position, many channels": ((6, 16), 16, 16, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "odd width, even with its padding": ((7, 15), 8, 8, (3, 3), (1, 1), ((1, 1), (2, 1))),
    "padding that cuts off": ((6, 17), 8, 8, (3, 3), (1, 1), ((1, 1), (-1, 0))),
    "one channel, padding that cuts off": ((6, 17), 1, 8, (3, 3), (1, 1), ((1, 1), (-1, 0))),
}


def arrays(size, channels, features, kernel, strides, padding):
    draw = np.random.default_rng(0).standard_normal
    x = draw((2, *size, channels), np.float32)
    weights = draw((*kernel, channels, features), np.float32)
    y = jax.eval_shape(lambda x, weights: plain(x, weights, strides, padding), x, weights)
    return x, weights, draw(y.shape, np.float32)


def on_gpu(x, kernel, strides, padding):
    """Compute the form that a GPU gets, on this machine."""
    return gpu.form(x, kernel, strides, padding)(x, kernel, strides, padding)


@partial(jax.jit, static_argnums=(0, 4, 5))
def with_slopes(function, x, kernel, slope, strides, padding):
    """Return the result and the gradients for the input and the kernel."""
    y, back = jax.vjp(lambda x, kernel: function(x, kernel, strides, padding), x, kernel)
    return y, *back(slope)


@pytest.mark.parametrize("form", [convolved, on_gpu], ids=["here", "gpu"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_equal_xla(case, form):
    *_, strides, padding = case
    operands = arrays(*case)
    for ours, theirs in zip(
        with_slopes(form, *operands, strides, padding),
        with_slopes(plain, *operands, strides, padding),
        strict=True,
    ):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("form", [convolved, on_gpu], ids=["here", "gpu"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_equal_torch(case, form):
    torch = pytest.importorskip("torch")
    *_, strides, ((top, bottom), (left, right)) = case
    x, kernel, slope = arrays(*case)
    image = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    weight = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    padded = torch.nn.functional.pad(image, (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, weight, stride=strides)
    y.backward(torch.tensor(slope.transpose(0, 3, 1, 2)))
    expected = (
        y.detach().numpy().transpose(0, 2, 3, 1),
        image.grad.numpy().transpose(0, 2, 3, 1),
        weight.grad.numpy().transpose(2, 3, 1, 0),
    )
    ours = with_slopes(form, x, kernel, slope, *case[-2:])
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=5e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("case", "times"),
    [
        ("16 to 16", (1.1, 1.1, 2)),
        # The kernel's gradient is a matrix product. GPUs sum it in float32, JAX on some CPUs does not.
        ("one input channel", (1.1, 4, 20)),
        ("one channel, one position", (1.1, 1.1, 1.1)),
    ],
)
def test_the_gpu_form_is_about_as_exact_in_bfloat16(case, times):
    """`times` bounds the RMS error relative to XLA's, for the result and each gradient."""
    (_, *channels, kernel, strides, padding) = CASES[case]
    exact = arrays((64, 64), *channels, kernel, strides, padding)
    rounded = [jnp.asarray(array, jnp.bfloat16) for array in exact]
    exact = with_slopes(plain, *(array.astype(jnp.float32) for array in rounded), strides, padding)

    def errors(function) -> list[float]:
        found = with_slopes(function, *rounded, strides, padding)
        assert all(array.dtype == jnp.bfloat16 for array in found)
        return [
            float(np.linalg.norm(array.astype(jnp.float32) - right) / np.linalg.norm(right))
            for array, right in zip(found, exact, strict=True)
        ]

    for ours, theirs, most in zip(errors(on_gpu), errors(plain), times, strict=True):
        assert ours <= most * theirs


def lowered(function, case, platform) -> list[str]:
    """Return the types of the convolutions in a forward and backward pass, lowered for any platform."""
    *_, strides, padding = CASES[case]
    operands = arrays(*CASES[case])
    step = jax.jit(lambda *operands: with_slopes(function, *operands, strides, padding))
    lines = step.trace(*operands).lower(lowering_platforms=(platform,)).as_text().splitlines()
    return sorted(line.split(" : ")[-1] for line in lines if ".convolution(" in line)


@pytest.mark.parametrize("platform", ["tpu", "rocm"])
@pytest.mark.parametrize("case", ["16 to 16", "one input channel", "strides of a stage"])
def test_other_accelerators_get_jaxs_convolutions(case, platform):
    assert len(lowered(plain, case, platform)) == 3
    assert lowered(convolved, case, platform) == lowered(plain, case, platform)


@pytest.mark.parametrize("case", ["strides of a stage", "more channels"])
def test_gpus_get_jaxs_convolutions_for_strides_or_many_channels(case):
    assert lowered(convolved, case, "cuda") == lowered(plain, case, "cuda")


def test_gpus_take_two_columns_at_a_time_for_few_channels():
    images, kernel, results = "tensor<2x6x9x32xf32>", "tensor<3x2x32x32xf32>", "tensor<2x6x8x32xf32>"
    assert lowered(convolved, "16 to 16", "cuda") == sorted(
        [
            f"({images}, {kernel}) -> {results}",
            f"({results}, {kernel}) -> {images}",
            f"({images}, {results}) -> {kernel}",
        ]
    )


@pytest.mark.parametrize("case", ["one input channel", "two channels, one position"])
def test_gpus_use_no_convolution_for_one_or_two_channels(case):
    assert lowered(convolved, case, "cuda") == []


def test_one_program_serves_all_platforms_without_special_forms():
    x, kernel, _ = arrays((128, 128), 64, 64, (3, 3), (1, 1), ((1, 1), (1, 1)))
    assert "cond" not in str(jax.make_jaxpr(lambda x: convolved(x, kernel, (1, 1), ((1, 1), (1, 1))))(x))


@pytest.mark.parametrize("function", [added, gpu.added])
def test_added_is_the_sum(function):
    x, y, slope = np.random.default_rng(0).standard_normal((3, 2, 128, 130, 8)).astype(np.float32)
    total, back = jax.vjp(function, x, y)
    np.testing.assert_array_equal(total, x + y)
    np.testing.assert_array_equal(back(slope), (slope, slope))


@pytest.mark.parametrize(("width", "channels"), [(129, 8), (128, 64)])
def test_arrays_that_cannot_be_paired_are_added_directly(width, channels):
    x = np.ones((1, 128, width, channels), np.float32)
    assert "cond" not in str(jax.make_jaxpr(added)(x, x))


@pytest.mark.parametrize(("platform", "shape"), [("cuda", "1x128x64x16"), ("tpu", "1x128x128x8")])
def test_a_gpu_adds_pairs_of_columns(platform, shape):
    x = jnp.zeros((1, 128, 128, 8))
    text = jax.jit(added).trace(x, x).lower(lowering_platforms=(platform,)).as_text()
    assert any("stablehlo.add" in line and shape in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("width", "features", "columns"),
    [(512, 8, 4), (512, 16, 2), (512, 24, 2), (512, 32, 1), (511, 8, 1), (6, 8, 2), (512, 1, 32)],
)
def test_number_of_columns_at_a_time(width, features, columns):
    assert columns_at_a_time(width, features) == columns


@pytest.mark.parametrize("size", [(6, 16), (128, 128)])
def test_it_equals_the_default_convolution_in_a_flax_layer(size):
    x = arrays(size, *CASES["16 to 16"][1:])[0]
    he = nn.initializers.he_normal()
    layer = nn.Conv(16, (3, 3), padding=1, use_bias=False, dtype=jnp.bfloat16, kernel_init=he)
    variables = layer.init(jax.random.key(0), x)
    mine = Convolution(16, (3, 3), padding=((1, 1), (1, 1)), dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, mine.init(jax.random.key(0), x), variables)
    ours = mine.apply(variables, x)
    assert ours.dtype == jnp.bfloat16
    theirs = layer.apply(variables, x)
    np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), rtol=0, atol=0.05)


@pytest.mark.parametrize(("size", "forms"), [((127, 128), False), ((128, 128), True)])
def test_small_images_are_left_to_xla(size, forms):
    x, kernel, _ = arrays(size, *CASES["16 to 16"][1:])
    layer = Convolution(16, (3, 3), padding=((1, 1), (1, 1)))
    jaxpr = jax.make_jaxpr(lambda x: layer.apply({"params": {"kernel": kernel}}, x))(x)
    assert ("custom_vjp_call" in str(jaxpr)) == forms

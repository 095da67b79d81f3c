"""Small functions exported to ONNX and run by onnxruntime, against JAX and SciPy on the same numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")

from rann_jax.features.front_end import front_end  # noqa: E402 - after the skip
from rann_jax.interop.onnx_program import to_onnx  # noqa: E402
from rann_jax.interop.onnx_rules import Unsupported  # noqa: E402
from rann_jax.models.wavegram import Wavegram  # noqa: E402

pytestmark = pytest.mark.fast

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 6, 4)).astype(np.float32)
MATRIX = RNG.normal(size=(6, 5)).astype(np.float32)


def run(function, x: np.ndarray) -> np.ndarray:
    model = to_onnx(function, x.shape[1:], name="x", result="y").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    single = session.run(None, {"x": x[:1]})[0]
    (whole,) = session.run(None, {"x": x})
    np.testing.assert_allclose(single, whole[:1], atol=1e-5)  # any batch size
    return whole


def dilated(x):
    return jax.lax.conv_general_dilated(
        x, KERNEL, (2,), [(2, 1)], rhs_dilation=(2,), dimension_numbers=("NHC", "HIO", "NHC")
    )


def grouped(x):
    """Convolve each of the six channels with its own kernel."""
    kernels = np.ones((3, 1, 6), np.float32) * np.arange(6, dtype=np.float32)
    return jax.lax.conv_general_dilated(
        x, kernels, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"), feature_group_count=6
    )


CASES = {
    "frames": lambda x: x[:, np.arange(3)[:, None] * 2 + np.arange(4)[None, :]],
    "chosen": lambda x: x[:, np.array([3, -1, 0])],
    "chosen twice": lambda x: x[:, np.array([3, -1, 0])][..., np.array([4, 2])],
    "last axis": lambda x: x[..., np.array([[5, 1]])],
    "strides": lambda x: jax.lax.slice_in_dim(x, 1, 7, 2, axis=1),
    "whole": lambda x: jax.lax.slice_in_dim(x, 0, x.shape[1], axis=1) + 1,
    "padded": lambda x: jnp.pad(x, [(0, 0), (1, 2), (0, 3)], constant_values=2.5),
    "reflected": lambda x: jnp.pad(x, [(0, 0), (3, 2), (0, 0)], mode="reflect"),
    "folded": lambda x: x.reshape(x.shape[0], 4, 2, 6).max(axis=2),
    "stacked": lambda x: jnp.stack([x, 2 * x, jnp.zeros_like(x)], axis=2),
    "joined": lambda x: jnp.concatenate([x, x[:, :1] * 3], axis=1),
    "matrix": lambda x: jnp.einsum("btf,fk->bkt", x, MATRIX),
    "batched": lambda x: jnp.einsum("btf,bsf->bts", x, x),
    "dilated": dilated,
    "grouped": grouped,
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "sigmoid": jax.nn.sigmoid,
    "leaky": lambda x: jax.nn.leaky_relu(x, 0.01),
    "root": jnp.cbrt,
    "powers": lambda x: jax.lax.rsqrt(x**2 + 1) + jnp.abs(x) ** 1.5 + x**3,
    "spread": lambda x: (
        jnp.broadcast_to(x.mean(axis=1, keepdims=True), x.shape) - x.min(axis=1, keepdims=True)
    ),
    "limited": lambda x: jnp.minimum(x, 0.3),
    "at most": lambda x: jnp.where(jnp.floor(2 * x) <= 0, x, 2.0),  # zeros, which are equal, occur
    "logarithm": lambda x: 10 * jnp.log10(jnp.maximum(x, 1e-10)),
}


@pytest.mark.parametrize("name", CASES)
def test_operations(name):
    x = RNG.normal(size=(3, 8, 6)).astype(np.float32)
    expected = np.asarray(jax.jit(CASES[name])(x))
    found = run(CASES[name], x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [16, 50, 101])
def test_power_spectra_equal_scipy(length):
    """FFTs of lengths with and without large prime factors."""
    sound = RNG.normal(size=(2, length)).astype(np.float32)
    spectrum = run(lambda x: jnp.square(jnp.fft.rfft(x).real) + jnp.square(jnp.fft.rfft(x).imag), sound)
    (_, expected) = scipy.signal.periodogram(sound, detrend=False, return_onesided=False, scaling="spectrum")
    np.testing.assert_allclose(spectrum, expected[:, : length // 2 + 1] * length**2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["mfcc", "gfcc", "chroma", "panns_log_mel"])
def test_front_ends(name):
    options = {"n_bins": 12} if name != "panns_log_mel" else {"n_bins": 16}
    feature = front_end(name, sample_rate=8000, seconds=0.5, frames_per_second=32, **options)
    sound = RNG.uniform(-0.5, 0.5, (2, feature.n_samples)).astype(np.float32)
    expected = np.asarray(feature(sound))
    np.testing.assert_allclose(run(feature, sound), expected, atol=1e-4 * np.abs(expected).max())


def test_a_learned_front_end():
    """A wavegram has convolutions along time, some dilated, BatchNorm and pooling."""
    model = Wavegram(16, 16)
    sound = RNG.uniform(-0.5, 0.5, (2, 4000)).astype(np.float32)
    learn = functools.partial(model.apply, train=False)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sound)
    variables = jax.tree.map(lambda leaf: RNG.uniform(0.1, 0.5, leaf.shape).astype(leaf.dtype), shapes)
    expected = np.asarray(jax.jit(learn)(variables, sound))
    found = run(lambda x: learn(variables, x), sound)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_constants_are_folded():
    """A BatchNorm becomes one subtraction and one product, however its constants were computed."""
    scale = jnp.arange(1.0, 7.0)

    def normalised(x):
        return (x - jnp.sqrt(scale)[None, None]) * (scale * jax.lax.rsqrt(scale + 1e-5))[None, None]

    nodes = [node.op_type for node in to_onnx(normalised, (8, 6), name="x", result="y").graph.node]
    assert nodes == ["Sub", "Mul", "Identity"]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: jnp.fft.fft(x).real, "fft"),
        (lambda x: jnp.sort(x, axis=-1), "sort"),
        (lambda x: jnp.cumsum(x, axis=-1), "cumsum"),
    ],
    ids=["fft", "sort", "cumsum"],
)
def test_an_operation_without_a_rule_is_named(function, says):
    with pytest.raises(Unsupported, match=says):
        to_onnx(function, (8, 6), name="x", result="y")

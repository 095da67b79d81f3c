"""Batch normalisation with its activation, against PyTorch's and against JAX's gradients of flax's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax.models.norm import BatchNorm

pytestmark = pytest.mark.fast
SHAPE = (3, 7, 5, 4)


def batch(seed: int, shape=SHAPE, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 2.0, shape).astype(np.float32)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def with_slopes(layer: nn.Module, variables, x, cotangent, **call):
    """Return the result, the new statistics, and the gradients for parameters and input."""

    def forward(params, x):
        return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"], **call)

    y, back, moved = jax.vjp(forward, variables["params"], x, has_aux=True)
    return y, moved["batch_stats"], *back(cotangent)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
def test_values_statistics_and_gradients_equal_flax(axis, slope):
    size = SHAPE[axis]
    variables = {
        "params": {"scale": batch(1, (size,)), "bias": batch(2, (size,))},
        "batch_stats": {"mean": batch(3, (size,)), "var": abs(batch(4, (size,)))},
    }
    x, cotangent = batch(5, mean=3.0), batch(6)

    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.BatchNorm(momentum=0.9, epsilon=1e-5, axis=axis, name="norm")(x, use_running_average=False)
            return jnp.where(y > 0, y, slope * y)

    nested = jax.tree.map(jnp.asarray, {kind: {"norm": leaves} for kind, leaves in variables.items()})
    expected = with_slopes(Reference(), nested, x, cotangent)
    flat = jax.tree.map(jnp.asarray, variables)
    ours = with_slopes(BatchNorm(axis=axis, slope=slope), flat, x, cotangent, train=True)
    for mine, theirs in zip(ours, expected, strict=True):
        theirs = theirs.get("norm", theirs) if isinstance(theirs, dict) else theirs
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), mine, theirs)


@pytest.mark.parametrize("slope", [0.0, 0.01, 1.0])
def test_training_and_inference_equal_torch(slope):
    torch = pytest.importorskip("torch")
    layer, x, cotangent = BatchNorm(slope=slope), batch(0, mean=-4.0), batch(1)
    variables = layer.init(jax.random.key(0), x, train=True)
    y, moved, d_params, dx = with_slopes(layer, variables, x, cotangent, train=True)

    twin = torch.nn.BatchNorm2d(SHAPE[-1])
    given = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
    out = torch.nn.functional.leaky_relu(twin(given), slope)
    out.backward(torch.tensor(cotangent).permute(0, 3, 1, 2))
    channels_last = (0, 2, 3, 1)
    np.testing.assert_allclose(y, out.detach().permute(channels_last), atol=1e-5)
    np.testing.assert_allclose(dx, given.grad.permute(channels_last), atol=1e-5)
    np.testing.assert_allclose(d_params["scale"], twin.weight.grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(d_params["bias"], twin.bias.grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved["mean"], twin.running_mean, rtol=1e-5)
    values = x.size // SHAPE[-1]  # torch's running variance is unbiased
    unbiased = 0.9 + (moved["var"] - 0.9) * values / (values - 1)
    np.testing.assert_allclose(unbiased, twin.running_var, rtol=1e-5)

    inferred = layer.apply({**variables, "batch_stats": moved}, x, train=False)
    twin.eval()
    with torch.no_grad():
        twin.running_var.copy_(torch.tensor(np.asarray(moved["var"])))
        expected = torch.nn.functional.leaky_relu(twin(given), slope).permute(channels_last)
    np.testing.assert_allclose(inferred, expected, atol=1e-5)


def test_only_the_input_is_kept_for_the_backward_pass():
    """It keeps its own type: two bytes a value if the network computes in bfloat16."""
    layer, x = BatchNorm(slope=0.01, dtype=jnp.bfloat16), jnp.zeros((2, 64, 64, 8), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, train=True)
    forward = lambda x: layer.apply(variables, x, train=True, mutable=["batch_stats"])  # noqa: E731
    _, back, _ = jax.vjp(forward, x, has_aux=True)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(back))
    assert x.nbytes <= kept < x.nbytes + 1000


def test_statistics_of_bfloat16_are_sums_of_float32():
    layer, x = BatchNorm(), jnp.asarray(batch(0, mean=20.0), jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x, train=True)
    _, moved = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    wide = np.asarray(x, np.float64)
    np.testing.assert_allclose(moved["batch_stats"]["mean"], 0.1 * wide.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * wide.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_float32_input_is_rounded_after_it_is_normalised(train):
    """Images of features are in dB: near -40, neighbouring values of bfloat16 are 0.25 apart."""
    layer, x = BatchNorm(axis=1, dtype=jnp.bfloat16), batch(0, mean=-40.0)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    variables = {**layer.init(jax.random.key(0), x, train=True), "batch_stats": {"mean": mean, "var": std**2}}
    y, _ = layer.apply(variables, x, train=train, mutable=["batch_stats"])
    exact = (x - mean[:, None, None]) / std[:, None, None]
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0, atol=0.02)


def test_constant_input_gives_the_bias_and_finite_gradients():
    layer, x = BatchNorm(slope=0.01), jnp.full(SHAPE, -100.0)
    variables = layer.init(jax.random.key(0), x, train=True)
    y, _, *slopes = with_slopes(layer, variables, x, jnp.ones(SHAPE), train=True)
    np.testing.assert_allclose(y, 0.0, atol=0.02)  # rounding of 100 over the root of epsilon
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("slope", [-0.1, 1.5])
def test_an_invalid_slope_is_refused(slope):
    with pytest.raises(ValueError, match=f"from 0 to 1, not {slope}"):
        BatchNorm(slope=slope).init(jax.random.key(0), batch(0), train=True)

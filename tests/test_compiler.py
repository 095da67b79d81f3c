"""XLA options for networks: what they change on CPUs, and how options unknown to XLA are handled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import compiler

pytestmark = pytest.mark.fast


def gradient(weights, images):
    def convolved(weights):
        return jax.lax.conv_general_dilated(
            images, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    out, back = jax.vjp(convolved, weights)
    return back(out)[0]


def test_weight_gradients_on_cpus_use_xlas_own_convolutions():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((3, 3, 32, 32), np.float32))
    images = jnp.asarray(rng.standard_normal((2, 16, 24, 32), np.float32))
    plain = jax.jit(gradient).lower(weights, images).compile()
    ours = jax.jit(gradient, compiler_options=compiler.network_options()).lower(weights, images).compile()
    if "ynn_fusion" not in plain.as_text():
        pytest.skip("this version of XLA gives no convolution to YNN: rann_jax/compiler.py can go")
    assert "ynn_fusion" not in ours.as_text()
    expected = plain(weights, images)
    np.testing.assert_allclose(ours(weights, images), expected, atol=1e-5 * float(abs(expected).max()))


def test_other_devices_use_xlas_defaults():
    class Chip:
        platform = "tpu"

    assert compiler.network_options(Chip()) == {}


def test_options_unknown_to_xla_are_left_out():
    known = dict(compiler.CPU_OPTIONS)
    assert compiler.known_options(xla_cpu_no_such_option="1", **known) == known
    (name,) = known
    assert compiler.known_options(**{name: "LIBRARY_FUSION_TYPE_NONE_SUCH"}) == {}

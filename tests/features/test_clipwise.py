"""One clip after another on a CPU gives what the whole batch gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax.features.clipwise import clipwise

pytestmark = pytest.mark.fast


def halves(clips):
    assert clips.ndim == 2
    return jnp.stack([clips[:, :3], clips[:, 3:]], axis=1) ** 2


@pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3)])
def test_leading_axes_are_kept(leading):
    y = jnp.asarray(np.random.default_rng(0).standard_normal((*leading, 6)), jnp.float32)
    out = jax.jit(lambda y: clipwise(halves, y))(y)
    np.testing.assert_allclose(out, np.square(y).reshape(*leading, 2, 3))
    gradient = jax.grad(lambda y: jnp.sum(clipwise(halves, y)))(y)
    np.testing.assert_allclose(gradient, 2 * y)


def test_on_a_cpu_only_one_clip_is_at_work():
    y = jnp.ones((5, 6))
    lowered = jax.jit(lambda y: clipwise(halves, y)).lower(y).as_text()
    assert "while" in lowered
    assert "tensor<1x2x3xf32>" in lowered

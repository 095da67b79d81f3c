"""The maximum over positions, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax.models.pooling import largest

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_goes_to_the_largest(dtype):
    x = jax.random.normal(jax.random.key(0), (3, 20, 5), dtype)
    x = x.at[1, 4:6, 2].set(jnp.asarray(9, dtype))  # a tie: the first position gets the gradient
    weights = jax.random.normal(jax.random.key(1), (3, 5), dtype)
    value, slope = jax.jit(jax.value_and_grad(lambda x: jnp.sum(weights * largest(x))))(x)
    array = np.asarray(x, np.float64)
    expected = np.zeros_like(array)
    np.put_along_axis(expected, array.argmax(1)[:, None], np.asarray(weights, np.float64)[:, None], axis=1)
    np.testing.assert_array_equal(np.asarray(slope, np.float64), expected)
    np.testing.assert_array_equal(largest(x), x.max(axis=1))
    assert value.dtype == dtype


def test_the_gradient_compares_indices_and_never_divides():
    """Recomputed values may differ from the maximum, and then a count of equal values would be zero."""
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(largest(x))))
    lines = gradient.lower(jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)).as_text().splitlines()
    assert not any("divide" in line for line in lines)
    compared = [line for line in lines if "stablehlo.compare" in line and "2x3x4x" in line]
    assert len(compared) == 1
    assert "2x3x4xi32" in compared[0]

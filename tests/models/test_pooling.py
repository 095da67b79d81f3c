"""The maximum over positions, and where its gradient goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax.models.pooling import largest

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradient_goes_to_the_largest(dtype):
    x = jax.random.normal(jax.random.key(0), (3, 20, 5), dtype)
    x = x.at[1, 4:6, 2].set(jnp.asarray(9, dtype))  # two are the largest: the first has it
    weights = jax.random.normal(jax.random.key(1), (3, 5), dtype)
    value, slope = jax.jit(jax.value_and_grad(lambda x: jnp.sum(weights * largest(x))))(x)
    array = np.asarray(x, np.float64)
    expected = np.zeros_like(array)
    np.put_along_axis(expected, array.argmax(1)[:, None], np.asarray(weights, np.float64)[:, None], axis=1)
    np.testing.assert_array_equal(np.asarray(slope, np.float64), expected)
    np.testing.assert_array_equal(largest(x), x.max(axis=1))
    assert value.dtype == dtype


def test_no_value_is_compared_and_nothing_is_divided():
    """What could be computed twice and differ: equality with the maximum, and a count that is then zero."""
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(largest(x))))
    lines = gradient.lower(jax.ShapeDtypeStruct((2, 3, 4), jnp.float32)).as_text().splitlines()
    assert not any("divide" in line for line in lines)
    compared = [line for line in lines if "stablehlo.compare" in line and "2x3x4x" in line]
    assert len(compared) == 1
    assert "2x3x4xi32" in compared[0]

"""Normalisation of columns against `librosa.util.normalize`."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features.normalize import normalize

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("norm", [np.inf, -np.inf, 0, 0.5, 1, 2, 3, None])
def test_normalize_equals_librosa(norm):
    S = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    S[:, :, 1] = 0  # silence stays silence
    S[:, 2, 3] = 0
    S[:, :, 2] *= 1e-25  # its square underflows float32
    theirs = librosa.util.normalize(S, norm=norm, axis=-2)
    np.testing.assert_allclose(normalize(S, norm, -2), theirs, rtol=2e-6)


@pytest.mark.parametrize("norm", [np.inf, -np.inf, 0.5, 2])
def test_the_gradient_of_very_quiet_columns_is_finite(norm):
    """The result does not depend on a column's scale, so a scale of 1e-25 multiplies the gradient by 1e25."""
    S, weights = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float32)
    gradient = jax.grad(lambda S: jnp.sum(weights * normalize(S, norm, -2)))
    of_quiet, of_loud = (np.asarray(gradient(jnp.asarray(S * scale))) for scale in (np.float32(1e-25), 1))
    np.testing.assert_allclose(of_quiet * np.float32(1e-25), of_loud, rtol=1e-4, atol=1e-5)

"""Normalisation of columns against `librosa.util.normalize`."""

import librosa
import numpy as np
import pytest

from rann_jax.features.normalize import normalize

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("norm", [np.inf, -np.inf, 0, 0.5, 1, 2, 3, None])
def test_equals_librosas(norm):
    S = np.random.default_rng(0).standard_normal((3, 5, 7)).astype(np.float32)
    S[:, :, 1] = 0  # silence stays silence
    S[:, 2, 3] = 0
    S[:, :, 2] *= 1e-25  # whose square is not a float32
    theirs = librosa.util.normalize(S, norm=norm, axis=-2)
    np.testing.assert_allclose(normalize(S, norm, -2), theirs, rtol=2e-6)

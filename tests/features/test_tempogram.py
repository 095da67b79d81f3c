"""Tempograms against librosa's; values of the cyclic one are in `test_cyclic_tempogram.py`."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import cyclic_tempogram, fourier_tempogram, tempogram

TOLERANCE = 3e-6


@pytest.mark.fast
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"win_length": 101, "window": "hamming", "norm": 2},
        {"win_length": 20, "center": False, "norm": None},
        {"win_length": 1},
    ],
    ids=str,
)
def test_tempogram_equals_librosa(arguments, clip, relative_error):
    theirs = librosa.feature.tempogram(y=clip(22050), **arguments)
    assert relative_error(tempogram(clip(22050), **arguments), theirs) < TOLERANCE


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")
@pytest.mark.parametrize("arguments", [{}, {"win_length": 31}, {"win_length": 20, "center": False}])
def test_fourier_tempogram_equals_librosa(arguments, clip, relative_error):
    theirs = librosa.feature.fourier_tempogram(y=clip(22050), **arguments)
    assert relative_error(fourier_tempogram(clip(22050), **arguments), theirs) < TOLERANCE


@pytest.mark.parametrize("feature", [tempogram, fourier_tempogram, cyclic_tempogram])
def test_batches_jit_and_gradients(feature, hostile):
    y = jnp.asarray(np.stack([hostile(2001)["noise"], hostile(2001)["click"]]))

    def image(y):
        return jnp.abs(feature(y, win_length=16, sr=8000, hop_length=128))

    eager = image(y)
    np.testing.assert_allclose(jax.vmap(image)(y), eager, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(image)(y), eager, rtol=1e-5, atol=1e-6)
    slope = jax.jit(jax.grad(lambda y: jnp.sum(image(y))))
    for sound in (y, jnp.zeros_like(y)):
        assert np.all(np.isfinite(slope(sound)))


@pytest.mark.parametrize(
    ("feature", "change", "named"),
    [
        (tempogram, {"win_length": 0}, "win_length"),
        (tempogram, {"win_length": 50, "center": False}, "win_length=50 is longer"),
        (tempogram, {"norm": -2}, "norm"),
        (tempogram, {"y": None}, "either y or onset_envelope"),
        (fourier_tempogram, {"onset_envelope": np.zeros(9, np.float32)}, "either y or"),
    ],
)
def test_impossible_arguments_are_refused(feature, change, named):
    arguments = {"y": np.zeros(4000, np.float32), **change}
    with pytest.raises(ValueError, match=named):
        feature(arguments.pop("y"), **arguments)

"""PCEN against librosa in float64."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features


@pytest.fixture(scope="module")
def spectrograms(clip):
    mel = librosa.feature.melspectrogram(y=clip(44100), sr=44100, hop_length=160, power=1)
    return {"as librosa advises": mel * 2**31, "unscaled": mel}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gain": 0.5, "bias": 10, "power": 0.25, "eps": 0.1},
        {"power": 0},
        {"bias": 0},
        {"gain": 0},
        {"b": 0.3, "max_size": 3},
        {"max_size": 4},
        {"b": 1.0},
        {"sr": 44100, "hop_length": 160, "time_constant": 0.06},
    ],
    ids=str,
)
def test_pcen_equals_librosa(spectrograms, relative_error, arguments):
    for S in spectrograms.values():
        # With bias=0, zeros are log(0) in librosa, and NumPy warns about that.
        with np.errstate(divide="ignore"):
            expected = librosa.pcen(S.astype(np.float64), **arguments)
        assert relative_error(features.pcen(S, **arguments), expected) < 5e-6


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 1001])
def test_any_number_of_frames(relative_error, frames):
    S = np.random.default_rng(0).uniform(0, 1e6, (3, 4, frames)).astype(np.float32)
    expected = librosa.pcen(S.astype(np.float64))
    assert relative_error(features.pcen(S), expected) < 5e-6


@pytest.mark.fast
@pytest.mark.parametrize(("time_constant", "b"), [(1e-9, 1.0), (1e160, 1e-30)])
def test_extreme_time_constants(time_constant, b):
    """librosa cannot compute these filters: 1e-9 s is one without memory, 1e160 s one that never forgets."""
    S = np.random.default_rng(0).uniform(0, 1e6, (4, 50)).astype(np.float32)
    np.testing.assert_array_equal(features.pcen(S, time_constant=time_constant), features.pcen(S, b=b))


@pytest.mark.parametrize("arguments", [{}, {"power": 0}, {"bias": 0}, {"max_size": 3}], ids=str)
def test_silence(arguments):
    silence = jnp.zeros((2, 5, 30))
    assert not np.any(features.pcen(silence, **arguments))
    gradient = jax.jit(jax.grad(lambda S: jnp.sum(features.pcen(S, **arguments))))(silence)
    assert np.all(np.isfinite(gradient))


def test_the_least_eps_keeps_long_silence_finite():
    """In float32 the average of a thousand silent frames is zero, so only eps is left."""
    assert not np.any(features.pcen(np.zeros((2, 1000)), b=0.5, eps=1.2e-38))


def test_jit_and_vmap():
    S = np.random.default_rng(0).uniform(0, 1e6, (3, 4, 50)).astype(np.float32)
    eager = features.pcen(S, max_size=3)
    np.testing.assert_allclose(jax.jit(lambda S: features.pcen(S, max_size=3))(S), eager, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda S: features.pcen(S, max_size=3))(S), eager, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gain": -1}, "gain"),
        ({"bias": -1}, "bias"),
        ({"power": -1}, "power"),
        ({"eps": 0}, "eps"),
        ({"eps": 1e-39}, "eps=1e-39 must be at least 1.2e-38, the smallest normal float32"),
        ({"eps": 1e39}, r"eps=1e\+39"),
        ({"time_constant": 0}, "time_constant"),
        ({"b": 0}, "b=0"),
        ({"max_size": 0}, "max_size"),
        ({"S": np.zeros((3, 0))}, "at least one sample"),
        ({"S": np.zeros((3, 2), int)}, "floating"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.pcen(**{"S": np.ones((3, 4)), **arguments})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["gain", "bias", "power", "eps", "time_constant", "sr", "b"])
def test_arguments_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        features.pcen(np.ones((3, 4)), **{name: value})

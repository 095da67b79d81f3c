"""Decibels of power and of amplitude against librosa."""

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features


@pytest.mark.parametrize("top_db", [None, 80.0])
@pytest.mark.parametrize("ref", [1.0, 0.3, np.max])
def test_decibels_equal_librosa(clip, ref, top_db):
    power = librosa.feature.melspectrogram(y=clip(44100), sr=44100)
    ours = features.power_to_db(power, ref=ref, top_db=top_db)
    np.testing.assert_allclose(ours, librosa.power_to_db(power, ref=ref, top_db=top_db), atol=5e-5, rtol=0)
    ours = features.amplitude_to_db(power, ref=ref, top_db=top_db)
    np.testing.assert_allclose(
        ours, librosa.amplitude_to_db(power, ref=ref, top_db=top_db), atol=5e-5, rtol=0
    )


def test_decibels_of_a_complex_matrix(clip):
    matrix = librosa.stft(clip(22050))
    for ref in (1.0, np.max):
        np.testing.assert_allclose(
            features.amplitude_to_db(matrix, ref=ref),
            librosa.amplitude_to_db(np.abs(matrix), ref=ref),
            atol=5e-5,
            rtol=0,
        )


@pytest.mark.parametrize("ref", [1.0, jnp.max])
def test_top_db_is_per_clip(ref):
    loud_and_quiet = np.random.default_rng(0).uniform(1e-9, 1, (3, 2, 8, 20)).astype(np.float32)
    loud_and_quiet *= np.array([1, 1e-4, 1e-8], np.float32).reshape(3, 1, 1, 1)
    together = features.power_to_db(loud_and_quiet, ref=ref, top_db=20.0)
    for index in np.ndindex(3, 2):
        alone = features.power_to_db(loud_and_quiet[index], ref=ref, top_db=20.0)
        np.testing.assert_array_equal(together[index], alone)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amin": 0.0}, "amin"),
        ({"amin": -1e-5}, "amin"),
        ({"amin": 1e-39}, "amin"),
        ({"amin": 1e39}, "amin"),
        ({"amin": 1e200}, "amin"),
        ({"amin": float("inf")}, "amin"),
        ({"amin": float("nan")}, "amin"),
        ({"top_db": -1.0}, "top_db"),
        ({"top_db": float("nan")}, "top_db"),
        ({"ref": float("nan")}, "ref=nan must be finite"),
        ({"ref": -np.inf}, "ref=-inf must be finite"),
        ({"ref": np.float32("nan")}, "ref=.*nan.* must be finite"),
        ({"ref": 1e39}, r"ref=1e\+39 must be finite"),
        ({"ref": "max"}, "ref must be a number or a function, got 'max'"),
        ({"ref": None}, "ref must be a number or a function, got None"),
    ],
)
def test_impossible_decibel_arguments_are_refused(arguments, message):
    for function in (features.power_to_db, features.amplitude_to_db):
        with pytest.raises(ValueError, match=message):
            function(np.ones((2, 2)), **arguments)


@pytest.mark.parametrize("ref", [0, 0.0, -0.3, 1e-12, 0.3 + 0.4j, np.float64(0.3), np.int32(2), 1e19])
def test_number_as_reference_as_in_librosa(ref):
    S = np.random.default_rng(0).uniform(0, 2, (3, 5)).astype(np.float32)
    for name in ("power_to_db", "amplitude_to_db"):
        expected = getattr(librosa, name)(S, ref=ref, top_db=None)
        np.testing.assert_allclose(getattr(features, name)(S, ref=ref, top_db=None), expected, atol=2e-4)


def test_decibels_of_the_least_amplitude_and_of_a_list():
    assert features.amplitude_to_db([[0.0, 1.0]], amin=2e-19, top_db=None).tolist() == [
        [pytest.approx(-373.9794), 0]
    ]
    with pytest.raises(ValueError, match=r"at least 1\.1e-19"):
        features.amplitude_to_db([[0.0, 1.0]], amin=1e-20)

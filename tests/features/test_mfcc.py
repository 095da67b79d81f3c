"""MFCC and delta against librosa."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_mfcc_equals_librosa_on_real_clips(clip, relative_error, rate):
    y, mel = clip(rate), {"n_fft": 512, "hop_length": 160, "n_mels": 64}
    expected = librosa.feature.mfcc(y=y, sr=rate, **mel)
    assert relative_error(features.mfcc(y, sr=rate, **mel), expected) < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_mfcc": 13, "lifter": 22},
        {"dct_type": 1, "norm": None, "n_mels": 40},
        {"dct_type": 3},
        {"dct_type": 4, "mel_norm": None, "htk": True},
        {"n_mfcc": 40, "n_mels": 40, "fmin": 50.0, "fmax": 7000.0},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_mfcc_arguments(hostile, relative_error, arguments):
    # A lifter of 22 multiplies coefficient 10 by twelve, and with it the float32 noise of quiet bands.
    tolerance = 3e-6 if "lifter" in arguments else 1e-6
    for y in hostile().values():
        expected = librosa.feature.mfcc(y=y, sr=16000, **arguments)
        assert relative_error(features.mfcc(y, sr=16000, **arguments), expected) < tolerance


def test_mfcc_of_a_given_spectrogram(relative_error):
    S = np.random.default_rng(0).uniform(-80, 0, (3, 40, 7)).astype(np.float32)
    expected = librosa.feature.mfcc(S=S, n_mfcc=13)
    assert relative_error(features.mfcc(S=S, n_mfcc=13), expected) < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"order": 2},
        {"width": 5, "order": 1, "mode": "mirror"},
        {"width": 3, "mode": "nearest"},
        {"mode": "constant"},
        {"axis": 0},
        {"axis": -2, "width": 15, "order": 3},
    ],
    ids=str,
)
def test_delta_equals_librosa(relative_error, arguments):
    data = np.random.default_rng(0).normal(size=(20, 2, 31)).astype(np.float32)
    if arguments.get("axis") == -2:
        data = np.swapaxes(data, 0, 1)
    expected = librosa.feature.delta(data.astype(np.float64), **arguments)
    assert relative_error(features.delta(data, **arguments), expected) < 1e-6


@pytest.mark.fast
def test_a_call_is_one_program():
    """Separate programs for its parts might take the host longer to start than a GPU to run."""
    traced = jax.make_jaxpr(lambda y: features.mfcc(y, sr=8000, n_fft=256, n_mels=20, n_mfcc=13))(
        jnp.ones(900)
    )
    assert [equation.primitive.name for equation in traced.jaxpr.eqns] in (["jit"], ["pjit"])


def test_gradients_at_silence_and_jit():
    def coefficients(y):
        return features.mfcc(y, sr=8000, n_fft=256, n_mels=20, n_mfcc=8)

    gradient = jax.jit(jax.grad(lambda y: jnp.sum(features.delta(coefficients(y)))))
    assert np.all(np.isfinite(gradient(jnp.zeros(6000))))
    y = np.random.default_rng(0).normal(size=(2, 3000)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(coefficients)(y), coefficients(y), atol=1e-4)
    np.testing.assert_allclose(jax.vmap(coefficients)(y), coefficients(y), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_mfcc": 0}, "n_mfcc"),
        ({"n_mfcc": 41, "n_mels": 40}, "as many bands"),
        ({"n_mels": 1, "n_mfcc": 1, "dct_type": 1}, "dct_type=1 needs two bands or more, .* use more n_mels"),
        ({"S": np.zeros((1, 9)), "n_mfcc": 1, "dct_type": 1}, "dct_type=1 needs two bands or more"),
        ({"dct_type": 5}, "dct_type=5"),
        ({"norm": "slaney"}, "norm='slaney'"),
        ({"lifter": -1}, "lifter"),
        ({"lifter": np.nan}, "lifter=nan"),
        ({"lifter": np.inf}, "lifter=inf"),
        ({"fmax": 12000.0}, "Nyquist"),
        ({"y": None}, "needs a waveform"),
        ({"y": np.zeros(3000, np.int32)}, "floating"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.mfcc(**{"y": np.zeros(3000), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 8}, "odd"),
        ({"width": 1}, "at least 3"),
        ({"order": 9}, "order=9"),
        ({"width": 33}, "fewer than width"),
        ({"mode": "wrap"}, "mode='wrap'"),
        ({"axis": 5}, "axis=5 does not exist"),
        ({"axis": -3}, "axis=-3"),
    ],
)
def test_impossible_delta_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.delta(np.zeros((3, 31)), **arguments)

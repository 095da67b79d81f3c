"""Mel spectrogram and log-mel against librosa."""

import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile

from rann_jax import features

RANN = {"n_fft": 1380, "hop_length": 345, "fmin": 50.0, "fmax": 14000.0}
PANNS = {"n_fft": 1024, "hop_length": 320, "n_mels": 64, "fmin": 50.0, "pad_mode": "reflect"}


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_mel_and_log_mel_equal_librosa_on_real_clips(clip, relative_error, rate):
    y = clip(rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = librosa.feature.melspectrogram(y=y, sr=rate, n_mels=64)
    ours = features.melspectrogram(y, sr=rate, n_mels=64)
    assert relative_error(ours, expected) < 1e-6
    decibels = np.asarray(features.power_to_db(ours, top_db=80.0))
    reference = librosa.power_to_db(expected, top_db=80.0)
    np.testing.assert_allclose(decibels, reference, atol=5e-4, rtol=0)
    decibels = np.asarray(features.power_to_db(ours, top_db=None))
    reference = librosa.power_to_db(expected, top_db=None)
    np.testing.assert_allclose(decibels, reference, atol=2e-3, rtol=0)


def test_log_mel_without_a_floor_equals_librosa(data_dir):
    """The quietest bands lie 130 dB below the loudest, where a float32 transform gives only noise."""
    files = [
        *sorted((data_dir / "esc10_44k1/audio").glob("*.ogg"))[::40],
        *sorted((data_dir / "ravdess/audio").glob("*.ogg"))[::144],
    ]
    assert len(files) == 20
    for file in files:
        y, rate = soundfile.read(file, dtype="float32", always_2d=True)
        power = librosa.feature.melspectrogram(y=y[:, 0], sr=rate, **RANN)
        ours = features.melspectrogram(y[:, 0], sr=rate, **RANN)
        decibels = np.asarray(features.power_to_db(ours, top_db=None))
        reference = librosa.power_to_db(power, top_db=None)
        np.testing.assert_allclose(decibels, reference, atol=2e-3, rtol=0, err_msg=file.name)


@pytest.mark.parametrize(
    "arguments",
    [
        RANN,
        PANNS,
        {"htk": True, "norm": None, "power": 1.0},
        {"win_length": 800, "hop_length": 200, "window": "hamming", "norm": 1.0},
        {"center": False, "n_fft": 1025, "power": 1.5},
    ],
    ids=str,
)
def test_mel_arguments(hostile, relative_error, arguments):
    for name in ("noise", "click", "chirp"):
        y = hostile()[name]
        ours = features.melspectrogram(y, sr=32000, **arguments)
        expected = librosa.feature.melspectrogram(y=y, sr=32000, **arguments)
        assert relative_error(ours, expected) < 1e-6


@pytest.mark.parametrize("length", [1, 300])
def test_clip_shorter_than_a_window(relative_error, length):
    y = np.random.default_rng(length).normal(size=length).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = librosa.feature.melspectrogram(y=y)
    assert relative_error(features.melspectrogram(y), expected) < 1e-6


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_gradients_at_silence_are_finite(power):
    def loss(y):
        mel = features.melspectrogram(y, sr=8000, n_fft=256, n_mels=20, power=power)
        return jnp.sum(features.power_to_db(mel))

    slope = jax.jit(jax.grad(loss))
    for sound in (jnp.zeros(2000), jnp.zeros(2000).at[700].set(1.0)):
        assert np.all(np.isfinite(slope(sound)))


def test_jit_and_batches_agree():
    y = np.random.default_rng(1).normal(size=(2, 2, 3001)).astype(np.float32)
    eager = features.melspectrogram(y, n_fft=512, n_mels=20)
    jitted = jax.jit(lambda y: features.melspectrogram(y, n_fft=512, n_mels=20))(y)
    np.testing.assert_allclose(jitted, eager, rtol=1e-6)
    alone = features.melspectrogram(y[1, 0], n_fft=512, n_mels=20)
    np.testing.assert_allclose(eager[1, 0], alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sr": 16000, "fmax": 9000.0}, "above Nyquist"),
        ({"fmin": 500.0, "fmax": 400.0}, "fmin=500"),
        ({"fmin": -1.0}, "fmin=-1"),
        ({"n_mels": 0}, "n_mels"),
        ({"sr": 0}, "sr must be"),
        ({"sr": np.nan}, "sr must be"),
        ({"sr": np.inf}, "sr must be"),
        ({"power": 0.0}, "power"),
        ({"power": np.nan}, "power=nan"),
        ({"power": np.inf}, "power=inf"),
        ({"norm": "area"}, "norm='area'"),
        ({"norm": -1.0}, "norm=-1.0 must be"),
        ({"win_length": 4096}, "shorter than the window"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.melspectrogram(np.zeros(500), **arguments)

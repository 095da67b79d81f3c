"""The STFT against librosa, on real clips and hostile signals."""

import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features
from rann_jax.features.stft import transformed


def librosa_quietly(function, *args, **kwargs):
    """Call a function of librosa without its warnings about clips shorter than a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_stft_equals_librosa_on_real_clips(clip, relative_error, rate):
    y = clip(rate)
    assert relative_error(features.stft(y), librosa_quietly(librosa.stft, y)) < 3e-7


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_fft": 1380, "hop_length": 345},
        {"n_fft": 512, "win_length": 400, "hop_length": 160, "window": "hamming"},
        {"n_fft": 401, "hop_length": 100, "pad_mode": "reflect"},
        {"n_fft": 256, "center": False},
        {"n_fft": 300, "pad_mode": "edge", "window": ("kaiser", 4.0)},
        {"n_fft": 256, "pad_mode": "symmetric", "window": np.hanning(256)},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_stft_arguments(hostile, relative_error, arguments):
    for y in hostile().values():
        assert relative_error(features.stft(y, **arguments), librosa.stft(y, **arguments)) < 1e-6


def test_equal_windows_share_one_compilation():
    y = np.random.default_rng(0).normal(size=500).astype(np.float32)
    expected = features.stft(y, n_fft=128)
    cosine = features.stft(y, n_fft=128, window=("general_cosine", [0.5, 0.5]))
    np.testing.assert_allclose(cosine, expected, atol=1e-5)
    made = []
    for _ in range(3):
        # The periodic Hann window is compiled once, for its samples, not once for each new function.
        spectra = features.stft(y, n_fft=128, window=lambda n: np.hanning(n + 1)[:n])
        made.append(transformed._cache_size())
        np.testing.assert_allclose(spectra, expected, atol=1e-5)
    assert made == [made[0]] * 3


def test_numpy_numbers_as_windows_get_along_with_arrays_in_the_cache():
    y = np.ones(1000, np.float32)
    features.stft(y, n_fft=64, window=np.hanning)
    ours = features.stft(y, n_fft=64, window=np.float32(5.5))  # Kaiser's beta
    np.testing.assert_array_equal(ours, features.stft(y, n_fft=64, window=("kaiser", 5.5)))


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")  # two clips of one sample look like stereo
@pytest.mark.parametrize("length", [1, 7, 200, 1025])
def test_clip_shorter_than_a_window(relative_error, length):
    y = np.random.default_rng(length).normal(size=(2, length)).astype(np.float32)
    expected = librosa_quietly(librosa.stft, y)
    assert relative_error(features.stft(y), expected) < 5e-7


def test_jit_vmap_and_leading_axes_agree():
    y = np.random.default_rng(1).normal(size=(2, 3, 3001)).astype(np.float32)
    eager = features.stft(y, n_fft=256)
    assert eager.shape == (2, 3, 129, 47)
    np.testing.assert_array_equal(eager, jax.jit(lambda y: features.stft(y, n_fft=256))(y))
    mapped = jax.vmap(jax.vmap(lambda y: features.stft(y, n_fft=256)))(y)
    np.testing.assert_allclose(mapped, eager, atol=1e-5)
    assert features.stft(y.astype(np.float64), n_fft=256).dtype == jnp.complex64


def test_gradients_at_silence_are_finite():
    silence = jnp.zeros(2000)

    def loss(y):
        matrix = features.stft(y, n_fft=256)
        decibels = features.amplitude_to_db(matrix, ref=jnp.max)
        again = features.istft(matrix, n_fft=256)
        return jnp.sum(decibels) + jnp.sum(jnp.square(again))

    gradient = jax.jit(jax.grad(loss))(silence)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        (np.zeros(0, np.float32), {}, "at least one sample"),
        (np.zeros((0, 5), np.float32), {}, "at least one clip"),
        (np.float32(1), {}, "last axis"),
        (np.zeros(5, np.int16), {}, "floating-point, got int16"),
        (np.zeros(5, np.complex64), {}, "floating-point, got complex64"),
        (np.zeros(500), {"n_fft": 256, "win_length": 400}, "shorter than the window"),
        (np.zeros(500), {"n_fft": 0}, "n_fft must be a positive integer"),
        (np.zeros(500), {"hop_length": 2.5}, "hop_length must be a positive integer"),
        (np.zeros(500), {"center": False}, "center=True"),
        (np.zeros(500), {"pad_mode": "wrap"}, "pad_mode='wrap'"),
        (np.zeros(500), {"window": "hannn"}, "(?i)window"),
        (np.zeros(500), {"window": np.ones(7)}, "win_length is 2048"),
        (np.zeros(500), {"window": np.ones((1, 2048))}, r"shape \(1, 2048\)"),
        (np.zeros(500), {"window": lambda n: np.ones(n + 1)}, r"shape \(2049,\)"),
    ],
)
def test_impossible_arguments_are_refused(y, arguments, message):
    with pytest.raises(ValueError, match=message):
        features.stft(y, **arguments)

"""GFCC and gammatonegram against spafe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import features

spafe_gfcc = pytest.importorskip("spafe.features.gfcc")
preprocessing = pytest.importorskip("spafe.utils.preprocessing")


def spafe_arguments(rate, n_filters, n_fft, win_length, hop_length, fmin=50.0, fmax=None):
    # spafe takes seconds and rounds down to samples; half a sample more keeps the intended lengths.
    window = preprocessing.SlidingWindow((win_length + 0.5) / rate, (hop_length + 0.5) / rate, "hamming")
    return {
        "fs": rate,
        "nfilts": n_filters,
        "nfft": n_fft,
        "low_freq": fmin,
        "high_freq": fmax,
        "window": window,
    }


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_equal_to_spafe_on_real_clips(clip, relative_error, rate):
    y = clip(rate)
    lengths = {"n_fft": 1024, "win_length": 600, "hop_length": 200}
    theirs = spafe_arguments(rate, 64, 1024, 600, 200)
    ours = {"sr": rate, "n_filters": 64, "center": False, **lengths}
    power = spafe_gfcc.erb_spectrogram(y, **theirs)[0].T
    assert relative_error(features.gammatonegram(y, **ours), power) < 2e-6
    cepstrum = spafe_gfcc.gfcc(y, num_ceps=20, **theirs).T
    assert relative_error(features.gfcc(y, **ours), cepstrum) < 2e-6


@pytest.mark.parametrize("name", ["noise", "click", "chirp", "dc"])
def test_hostile_signals_and_other_arguments(hostile, relative_error, name):
    y = hostile()[name]
    theirs = spafe_arguments(16000, 24, 512, 401, 160, fmin=20.0, fmax=6000.0)
    ours = {"n_filters": 24, "n_fft": 512, "win_length": 401, "hop_length": 160}
    ours |= {"sr": 16000, "center": False, "fmin": 20.0, "fmax": 6000.0}
    cepstrum = spafe_gfcc.gfcc(y, num_ceps=13, **theirs).T
    assert relative_error(features.gfcc(y, n_gfcc=13, **ours), cepstrum) < 1e-5
    theirs |= {"pre_emph": False}
    power = spafe_gfcc.erb_spectrogram(y, **theirs)[0].T
    assert relative_error(features.gammatonegram(y, pre_emphasis=0.0, **ours), power) < 1e-5


def test_centred_frames_equal_spafe_on_the_padded_signal(clip, relative_error):
    y = clip(16000)
    emphasised = np.append(y[0], y[1:] - np.float32(0.97) * y[:-1])
    padded = np.pad(emphasised, 300).astype(np.float64)
    theirs = spafe_arguments(16000, 64, 1024, 600, 200)
    power = spafe_gfcc.erb_spectrogram(padded, pre_emph=False, **theirs)[0].T
    arguments = {"n_filters": 64, "n_fft": 1024, "win_length": 600, "hop_length": 200}
    ours = features.gammatonegram(y, sr=16000, **arguments)
    assert ours.shape[-1] == 1 + len(y) // 200
    assert relative_error(ours, power) < 1e-5


def test_short_clips_batches_silence():
    arguments = {"sr": 8000, "n_filters": 20, "n_fft": 256, "hop_length": 100}
    y = np.random.default_rng(0).normal(size=(2, 3, 90)).astype(np.float32)
    image = features.gfcc(y, **arguments)
    assert image.shape == (2, 3, 20, 1)
    np.testing.assert_allclose(image[1, 2], features.gfcc(y[1, 2], **arguments), rtol=1e-4)
    jitted = jax.jit(lambda y: features.gfcc(y, **arguments))(y)
    np.testing.assert_allclose(jitted, image, rtol=1e-5, atol=1e-5)
    assert not np.any(features.gfcc(np.zeros(500), **arguments))
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(features.gfcc(y, **arguments))))
    assert np.all(np.isfinite(gradient(jnp.zeros(500))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_fft": 512, "win_length": 600}, "n_fft=512 is shorter than the window"),
        ({"n_gfcc": 65, "n_filters": 64}, "as many filters"),
        ({"n_filters": 0, "n_gfcc": 0}, "n_gfcc"),
        ({"fmax": 9000.0}, "above Nyquist"),
        ({"fmin": -1.0}, "fmin"),
        ({"sr": np.nan}, "sr must be"),
        ({"pre_emphasis": np.nan}, "pre_emphasis=nan"),
        ({"pre_emphasis": np.inf}, "pre_emphasis=inf"),
        ({"center": False, "win_length": 2000}, "center=True"),
        ({"y": np.zeros(0)}, "at least one sample"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.gfcc(**{"y": np.zeros(1000), "sr": 16000, **arguments})

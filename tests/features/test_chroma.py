"""Chromagrams against librosa's, at tuning 0."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import chroma_cqt, chroma_stft

# librosa warns when a decimated signal is shorter than its filters.
pytestmark = pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")

REFERENCES = {
    chroma_stft: librosa.feature.chroma_stft,
    chroma_cqt: librosa.feature.chroma_cqt,
}

# Few octaves, so that one-second clips are long enough and tests stay fast.
FEW = {"fmin": 130.8, "n_octaves": 4}

CASES = [
    (chroma_stft, {}),
    (chroma_stft, {"norm": 2, "n_chroma": 24, "tuning": 0.2}),
    (chroma_stft, {"norm": 1, "octwidth": None, "base_c": False, "n_fft": 1024}),
    (chroma_stft, {"norm": None, "center": False, "win_length": 1000, "window": "hamming"}),
    (chroma_cqt, {}),
    (chroma_cqt, {"norm": None, "threshold": 0.05, "window": (0.5, 1.0, 0.5), **FEW}),
    (chroma_cqt, {"norm": 2, "n_chroma": 24, "bins_per_octave": None, "tuning": -0.1, **FEW}),
]


@pytest.mark.fast
@pytest.mark.parametrize(("feature", "arguments"), CASES)
def test_chroma_equals_librosa(feature, arguments, dithered, relative_error):
    y = dithered(22050)
    theirs = REFERENCES[feature](y=y, **{"tuning": 0.0, **arguments})
    assert relative_error(feature(y, **arguments), theirs) < 1e-5


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
def test_chroma_stft_at_other_rates(rate, dithered, relative_error):
    y = dithered(rate)
    theirs = librosa.feature.chroma_stft(y=y, sr=rate, tuning=0.0)
    assert relative_error(chroma_stft(y, sr=rate), theirs) < 1e-5


@pytest.mark.parametrize("rate", [8000, 48000])
def test_chroma_cqt_at_other_rates(rate, dithered, relative_error):
    y = dithered(rate, 0.5)
    theirs = librosa.feature.chroma_cqt(y=y, sr=rate, tuning=0.0, **FEW)
    assert relative_error(chroma_cqt(y, sr=rate, **FEW), theirs) < 1e-5


def test_leading_axes_jit_and_vmap(hostile):
    y = np.stack([hostile(4001)["noise"], hostile(4001)["chirp"]])[None]
    one_by_one = np.stack([chroma_stft(clip) for clip in y[0]])[None]
    np.testing.assert_allclose(chroma_stft(y), one_by_one, atol=5e-6)
    np.testing.assert_array_equal(jax.jit(chroma_stft)(y), chroma_stft(y))
    np.testing.assert_allclose(jax.vmap(chroma_stft)(y), one_by_one, atol=5e-6)


@pytest.mark.parametrize("feature", REFERENCES)
@pytest.mark.parametrize("norm", [1, 2, np.inf, 0.5])
def test_silence_is_zero_and_its_gradient_finite(feature, norm):
    arguments = {} if feature is chroma_stft else {"fmin": 500.0, "n_octaves": 2}

    def total(y):
        return jnp.sum(feature(y, norm=norm, **arguments))

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros(2048))
    assert value == 0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("feature", "change", "named"),
    [
        (chroma_stft, {"tuning": None}, "tuning=None.*librosa.estimate_tuning"),
        (chroma_cqt, {"tuning": None}, "tuning=None"),
        (chroma_stft, {"norm": -1}, "norm"),
        (chroma_stft, {"n_chroma": 0}, "n_chroma"),
        (chroma_stft, {"sr": 0}, "sr must be a positive sample rate in Hz, got 0"),
        (chroma_stft, {"sr": -8000}, "sr must be a positive sample rate in Hz, got -8000"),
        (chroma_stft, {"octwidth": 0}, "octwidth=0 must be positive"),
        (chroma_stft, {"octwidth": -1.0}, "octwidth=-1.0 must be positive"),
        (chroma_stft, {"octwidth": np.nan}, "octwidth=nan must be positive"),
        (chroma_stft, {"n_fft": 512, "win_length": 1024}, "n_fft"),
        (chroma_stft, {"n_fft": 1}, "n_fft=1 has no bin above 0 Hz"),
        (chroma_cqt, {"bins_per_octave": 30}, "bins_per_octave=30 must be a multiple"),
        (chroma_cqt, {"n_octaves": 10}, "above Nyquist"),
        (chroma_cqt, {"hop_length": 100}, "hop_length=100"),
    ],
)
def test_impossible_arguments_are_refused(feature, change, named):
    with pytest.raises(ValueError, match=named):
        feature(np.zeros(1000, np.float32), **change)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["sr", "tuning", "ctroct"])
def test_arguments_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        chroma_stft(np.zeros(1000, np.float32), **{name: value})

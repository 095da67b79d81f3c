"""Onset strength and tempograms against librosa's, and the cyclic tempogram against its definition."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import cyclic_tempogram, fourier_tempogram, onset_strength, tempogram

TOLERANCE = 3e-6


@pytest.mark.fast
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"lag": 3, "max_size": 5},
        {"max_size": 4, "n_mels": 40, "fmin": 50.0, "fmax": 8000.0},
        {"detrend": True},
        {"center": False, "n_fft": 1024, "hop_length": 200, "lag": 2},
        {"n_fft": 1023, "hop_length": 200},
        {"aggregate": np.median},
    ],
    ids=["defaults", "lag", "mel", "detrend", "not_centred", "odd", "median"],
)
def test_onset_strength_equals_librosa(arguments, clip, relative_error):
    theirs = librosa.onset.onset_strength(y=clip(22050), **arguments)
    if "aggregate" in arguments:
        arguments = {"aggregate": jnp.median}
    assert relative_error(onset_strength(clip(22050), **arguments), theirs) < TOLERANCE


@pytest.mark.parametrize("rate", [8000, 16000, 32000, 44100, 48000])
def test_onset_strength_at_other_rates(rate, clip, relative_error):
    theirs = librosa.onset.onset_strength(y=clip(rate), sr=rate)
    assert relative_error(onset_strength(clip(rate), sr=rate), theirs) < TOLERANCE


def test_onset_strength_of_hostile_signals(hostile, relative_error):
    signals = hostile(9001)
    ours = onset_strength(np.stack(list(signals.values())))
    for envelope, y in zip(ours, signals.values(), strict=True):
        assert relative_error(envelope, librosa.onset.onset_strength(y=y)) < 1e-5
    assert not np.any(onset_strength(np.zeros(9001, np.float32)))


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")
@pytest.mark.parametrize("n", [1, 600])
def test_onset_strength_of_short_clips(n, hostile, relative_error):
    y = hostile(9001)["noise"][:n]
    assert relative_error(onset_strength(y), librosa.onset.onset_strength(y=y)) < TOLERANCE


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


def cyclic_by_definition(envelope, frame_rate, win_length, tempo_ref, octave_bin, octave_num):
    """Return the tempogram of Grosche et al. 2010 in float64, one frame and one tempo at a time."""
    padded = np.pad(envelope.astype(np.float64), win_length // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win_length) / win_length)
    tempi = np.array([60 * frame_rate * k / win_length for k in range(win_length // 2 + 1)])
    out = np.zeros((octave_bin, len(envelope) + 1))
    for t in range(len(envelope) + 1):
        strength = np.abs(np.fft.rfft(padded[t : t + win_length] * window))
        for k in range(octave_bin):
            octaves = []
            for octave in range(octave_num):
                tempo = tempo_ref * 2.0 ** (octave + k / octave_bin)
                above = np.searchsorted(tempi, tempo, side="right")
                part = (tempo - tempi[above - 1]) / (tempi[above] - tempi[above - 1])
                octaves.append((1 - part) * strength[above - 1] + part * strength[above])
            out[k, t] = np.mean(octaves)
    return out


@pytest.mark.parametrize(
    ("win_length", "tempo_ref", "octave_bin", "octave_num"), [(384, 30, 40, 4), (64, 50, 12, 3)]
)
def test_cyclic_tempogram_equals_its_definition(
    win_length, tempo_ref, octave_bin, octave_num, clip, relative_error
):
    envelope = librosa.onset.onset_strength(y=clip(22050))
    axes = {"tempo_ref": tempo_ref, "octave_bin": octave_bin, "octave_num": octave_num}
    theirs = cyclic_by_definition(envelope, 22050 / 512, win_length, **axes)
    ours = cyclic_tempogram(clip(22050), win_length=win_length, **axes)
    assert relative_error(ours, theirs) < 1e-5
    again = cyclic_tempogram(onset_envelope=envelope, win_length=win_length, **axes)
    assert relative_error(again, theirs) < 1e-5


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
        (onset_strength, {"lag": 0}, "lag"),
        (onset_strength, {"max_size": 0}, "max_size"),
        (onset_strength, {"fmax": 12000.0}, "fmax"),
        (onset_strength, {"y": np.zeros(5, np.int32)}, "y must be floating"),
        (tempogram, {"win_length": 0}, "win_length"),
        (tempogram, {"win_length": 50, "center": False}, "win_length=50 is longer"),
        (tempogram, {"norm": -2}, "norm"),
        (tempogram, {"y": None}, "either y or onset_envelope"),
        (fourier_tempogram, {"onset_envelope": np.zeros(9, np.float32)}, "either y or"),
        (cyclic_tempogram, {"tempo_ref": 0}, "tempo_ref"),
        (cyclic_tempogram, {"hop_length": 0}, "hop_length"),
        (cyclic_tempogram, {"octave_num": 6}, "octave_num=6"),
        (cyclic_tempogram, {"sr": 8000, "hop_length": 1024}, "shorter hop_length"),
    ],
)
def test_impossible_arguments_are_refused(feature, change, named):
    arguments = {"y": np.zeros(4000, np.float32), **change}
    with pytest.raises(ValueError, match=named):
        feature(arguments.pop("y"), **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["tempo_ref", "sr"])
def test_arguments_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        cyclic_tempogram(onset_envelope=np.ones(500, np.float32), **{name: value})

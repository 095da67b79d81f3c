"""Onset strength against librosa's, on real clips and hostile signals."""

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import onset_strength

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


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lag": 0}, "lag"),
        ({"max_size": 0}, "max_size"),
        ({"fmax": 12000.0}, "fmax"),
        ({"y": np.zeros(5, np.int32)}, "y must be floating"),
    ],
)
def test_impossible_arguments_are_refused(change, named):
    arguments = {"y": np.zeros(4000, np.float32), **change}
    with pytest.raises(ValueError, match=named):
        onset_strength(arguments.pop("y"), **arguments)

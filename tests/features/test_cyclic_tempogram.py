"""The cyclic tempogram against its definition."""

import librosa
import numpy as np
import pytest

from rann_jax.features import cyclic_tempogram


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["tempo_ref", "sr"])
def test_arguments_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        cyclic_tempogram(onset_envelope=np.ones(500, np.float32), **{name: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tempo_ref": 0}, "tempo_ref"),
        ({"hop_length": 0}, "hop_length"),
        ({"octave_num": 6}, "octave_num=6"),
        ({"sr": 8000, "hop_length": 1024}, "shorter hop_length"),
    ],
)
def test_impossible_arguments_are_refused(change, named):
    arguments = {"y": np.zeros(4000, np.float32), **change}
    with pytest.raises(ValueError, match=named):
        cyclic_tempogram(arguments.pop("y"), **arguments)

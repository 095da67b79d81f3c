"""Chroma energy normalised statistics against librosa's, at tuning 0."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import chroma_cens

# librosa warns when a decimated signal is shorter than its filters.
pytestmark = pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")

# Few octaves, so that one-second clips are long enough and tests stay fast.
FEW = {"fmin": 130.8, "n_octaves": 4}


@pytest.mark.fast
@pytest.mark.parametrize(
    "arguments",
    [
        {**FEW},
        {"norm": None, "win_len_smooth": None, **FEW},
        {"win_len_smooth": 4, "smoothing_window": "boxcar", **FEW},
        {"win_len_smooth": 4, "smoothing_window": np.array([1.0, 2, 5, 7, 2, 1]), **FEW},
    ],
)
def test_cens_equals_librosa(arguments, dithered, relative_error):
    y = dithered(22050)
    theirs = librosa.feature.chroma_cens(y=y, **{"tuning": 0.0, **arguments})
    assert relative_error(chroma_cens(y, **arguments), theirs) < 1e-5


@pytest.mark.parametrize("norm", [1, 2, np.inf, 0.5])
def test_silence_is_zero_and_its_gradient_finite(norm):
    def total(y):
        return jnp.sum(chroma_cens(y, norm=norm, fmin=500.0, n_octaves=2))

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros(2048))
    assert value == 0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("change", "named"), [({"tuning": None}, "tuning=None"), ({"win_len_smooth": 0}, "win_len_smooth")]
)
def test_impossible_arguments_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        chroma_cens(np.zeros(1000, np.float32), **change)

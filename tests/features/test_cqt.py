"""Constant-Q and variable-Q transforms against librosa's."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features import band, cqt, vqt
from rann_jax.features.cqt import _vqt

# librosa warns when a decimated signal is shorter than its filters.
pytestmark = pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")

# Relative to the peak. The remaining error is libsoxr's rounding, 1e-7 of the loudest input; it is largest if
# a clip is loud above the highest bin.
TOLERANCE = 1e-5

# Arguments that change the rates, the hops, the filters or the steps after them.
VARIANTS = [
    {},
    {"hop_length": 256},
    {"n_bins": 252, "bins_per_octave": 36},
    {"n_bins": 30, "fmin": 110.0},
    {"filter_scale": 2.0, "n_bins": 60},
    {"filter_scale": 0.5, "window": "hamming", "norm": 2},
    {"sparsity": 0.0, "scale": False, "n_bins": 36},
    {"tuning": 0.3, "pad_mode": "reflect", "fmin": 65.4, "n_bins": 48},
    {"n_bins": 1, "fmin": 1000.0},
]


@pytest.mark.fast
@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_cqt_equals_librosa(arguments, clip, relative_error):
    y = clip(22050)
    assert relative_error(cqt(y, **arguments), librosa.cqt(y, **arguments)) < TOLERANCE


@pytest.mark.parametrize(("rate", "n_bins"), [(8000, 72), (16000, 84), (32000, 84), (44100, 84), (48000, 96)])
def test_cqt_at_other_rates(rate, n_bins, clip, relative_error):
    y = clip(rate, 0.5)
    ours = cqt(y, sr=rate, n_bins=n_bins)
    assert relative_error(ours, librosa.cqt(y, sr=rate, n_bins=n_bins)) < TOLERANCE


def test_decimation_by_several_octaves_at_once(clip, relative_error):
    arguments = {"sr": 48000, "n_bins": 24, "hop_length": 1024}
    y = clip(48000, 0.5)
    assert relative_error(cqt(y, **arguments), librosa.cqt(y, **arguments)) < TOLERANCE


@pytest.mark.parametrize(
    "arguments",
    [{}, {"gamma": 20.0}, {"intervals": "ji5", "n_bins": 36}, {"intervals": [1, 4 / 3, 3 / 2]}],
    ids=str,
)
def test_vqt_equals_librosa(arguments, clip, relative_error):
    arguments = {"n_bins": 21, "fmin": 65.4, **arguments}
    y = clip(22050)
    assert relative_error(vqt(y, **arguments), librosa.vqt(y, **arguments)) < TOLERANCE


def test_hostile_signals_in_one_batch(hostile, relative_error):
    y = np.stack(list(hostile(9001).values()))
    ours = cqt(y[None])
    for clip, image in zip(y, ours[0], strict=True):
        assert relative_error(image, librosa.cqt(clip)) < TOLERANCE
    assert not np.any(cqt(np.zeros(9001, np.float32)))


@pytest.mark.parametrize("n", [1, 200, 513])
def test_clips_shorter_than_a_filter(n, hostile, relative_error):
    y = hostile(9001)["noise"][:n]
    assert relative_error(cqt(y), librosa.cqt(y)) < TOLERANCE


def test_bins_near_nyquist_follow_librosa_1(hostile, relative_error):
    """If the top bin is above 0.4 sr, the octave below is not decimated; librosa 0.11 would lose 5% of it."""
    y = hostile(9001)["noise"]
    theirs = librosa.cqt(y, n_bins=98)
    tolerance = TOLERANCE if librosa.__version__ >= "1" else 0.1
    assert relative_error(cqt(y, n_bins=98), theirs) < tolerance


def test_jit_vmap_and_gradients(hostile):
    y = jnp.asarray(np.stack([hostile(4001)["noise"], hostile(4001)["click"]]))

    def octaves(y):
        return cqt(y, n_bins=24, fmin=500.0)

    eager = octaves(y)
    np.testing.assert_array_equal(jax.jit(octaves)(y), eager)
    np.testing.assert_allclose(jax.vmap(octaves)(y), eager, atol=1e-6)

    def energy(y):
        bins = octaves(y)
        return jnp.sum(jnp.square(bins.real) + jnp.square(bins.imag))

    slope = jax.jit(jax.grad(energy))
    assert np.all(np.asarray(slope(jnp.zeros_like(y))) == 0)
    # The energy is quadratic, so its derivative along y is twice the energy.
    np.testing.assert_allclose(jnp.vdot(slope(y), y), 2 * energy(y), rtol=1e-4)


@pytest.mark.fast
def test_equal_numbers_share_one_compilation():
    y = np.ones(1000, np.float32)
    expected = cqt(y, n_bins=12, fmin=500.0, hop_length=256, bins_per_octave=12)
    made = _vqt._cache_size()
    again = cqt(
        y, n_bins=np.int64(12), fmin=np.float32(500), hop_length=np.int32(256), bins_per_octave=np.int64(12)
    )
    np.testing.assert_array_equal(again, expected)
    assert _vqt._cache_size() == made


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tuning": None}, "tuning=None"),
        ({"hop_length": 500}, "hop_length=500 must be a multiple of 64.*use hop_length=512"),
        ({"hop_length": 0}, "hop_length"),
        ({"n_bins": 110}, "above Nyquist"),
        ({"fmin": -1.0}, "fmin"),
        ({"sr": 0}, "sr"),
        ({"pad_mode": "wrap"}, "pad_mode"),
        ({"pad_mode": "reflect"}, "too few to reflect"),
        ({"res_type": "fft"}, "res_type"),
        ({"norm": -1}, "norm=-1 must be"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"window": np.ones(9)}, "window must be a name"),
        ({"y": np.zeros(3, np.float32), "n_bins": 12, "sr": 48000}, "fewer than the"),
        ({"y": np.zeros(1000, np.int16)}, "y must be floating"),
        ({"y": np.zeros((2, 0), np.float32)}, "y must hold samples"),
    ],
)
def test_impossible_arguments_are_refused(change, named):
    arguments = {"y": np.zeros(1000, np.float32), **change}
    with pytest.raises(ValueError, match=named):
        cqt(arguments.pop("y"), **arguments)


@pytest.mark.fast
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["sr", "fmin", "filter_scale", "tuning", "gamma"])
def test_arguments_that_are_not_finite_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        vqt(np.zeros(1000, np.float32), **{name: value})


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gamma": -1.0}, "gamma=-1.0 Hz must not be negative"),
        ({"intervals": "ji9"}, "intervals='ji9'.*'ji7'"),
        ({"intervals": []}, "intervals="),
        ({"intervals": [1, 1.5, 1.5]}, "distinct ratios"),
        ({"intervals": [1, 2.0]}, "below 2"),
    ],
)
def test_impossible_vqt_bands_are_refused(change, named):
    with pytest.raises(ValueError, match=named):
        vqt(np.zeros(1000, np.float32), **change)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("n_bins", "n", "frames"), [(84, 510, 1), (84, 511, 2), (84, 1023, 3), (12, 384, 1), (12, 385, 2)]
)
def test_early_decimation_rounds_the_number_of_samples_up(n_bins, n, frames):
    """As in librosa, 44.1 kHz and the hop of 512 are first divided by 2 for 84 bins and by 128 for 12."""
    y = np.zeros(n, np.float32)
    arguments = {"sr": 44100, "n_bins": n_bins}
    assert jax.eval_shape(lambda y: cqt(y, **arguments), y).shape == (n_bins, frames)
    assert librosa.cqt(y, **arguments).shape == (n_bins, frames)


def test_the_lowest_note_equals_librosa():
    assert librosa.note_to_hz("C1") == band.C1

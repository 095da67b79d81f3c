"""Wavelet transforms against PyWavelets in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from rann_jax import features

SCALES = (1.0, 2.0, 3.5, 10.0, 31.7, 100.0, 400.0)


def pywt_cwt(y, scales, wavelet):
    coefficients, _ = pywt.cwt(y.astype(np.float64), scales, wavelet, method="fft")
    return np.moveaxis(coefficients, 0, -2)


@pytest.mark.parametrize(
    "wavelet",
    ["morl", "mexh", "gaus1", "gaus8", "cmor1.5-1.0", "cgau1", "shan1.5-1.0", "fbsp2-1.5-1.0"],
)
def test_cwt_equals_pywt(hostile, relative_error, wavelet):
    y = np.stack([hostile(3001)[name] for name in ("noise", "click", "chirp")])
    ours, expected = features.cwt(y, SCALES, wavelet), pywt_cwt(y, SCALES, wavelet)
    assert np.iscomplexobj(ours) == np.iscomplexobj(expected)
    for row in range(len(SCALES)):
        assert relative_error(ours[:, row], expected[:, row]) < 2e-6


@pytest.mark.parametrize("rate", [8000, 44100])
def test_cwt_of_real_clips(clip, relative_error, rate):
    y = clip(rate)
    scales = np.geomspace(3, 200, 12)
    assert relative_error(features.cwt(y, scales, "morl"), pywt_cwt(y, scales, "morl")) < 2e-6


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_cwt_of_a_clip_shorter_than_the_wavelet(relative_error, samples):
    y = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    ours = features.cwt(y, SCALES, "cgau4")
    assert relative_error(ours, pywt_cwt(y, SCALES, "cgau4")) < 1e-5


MODES = ["symmetric", "zero", "constant", "periodic", "periodization", "reflect"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior3.1"])
def test_dwt_equals_pywt(relative_error, mode, wavelet):
    for samples in (2, 5, 16, 301):
        y = np.random.default_rng(samples).normal(size=(2, samples)).astype(np.float32)
        expected = pywt.dwt(y.astype(np.float64), wavelet, mode)
        ours = features.dwt(y, wavelet, mode)
        assert relative_error(np.concatenate(ours, -1), np.concatenate(expected, -1)) < 1e-6


@pytest.mark.parametrize("wavelet", ["db2", "sym8", "coif3", "dmey"])
def test_wavedec_equals_pywt_on_a_real_clip(clip, relative_error, wavelet):
    y = clip(16000)
    ours = jax.jit(features.wavedec, static_argnames="wavelet")(y, wavelet=wavelet)
    expected = pywt.wavedec(y.astype(np.float64), wavelet)
    assert [part.shape for part in ours] == [part.shape for part in expected]
    assert relative_error(np.concatenate(ours), np.concatenate(expected)) < 2e-6


def test_wavedec_level_and_mode(relative_error):
    y = np.random.default_rng(0).normal(size=(2, 3, 100)).astype(np.float32)
    ours = features.wavedec(y, "db3", level=3, mode="periodization")
    expected = pywt.wavedec(y.astype(np.float64), "db3", level=3, mode="periodization")
    assert [part.shape for part in ours] == [part.shape for part in expected]
    for part, reference in zip(ours, expected, strict=True):
        assert relative_error(part, reference) < 1e-6
    (same,) = features.wavedec(y, "db3", level=0)
    np.testing.assert_array_equal(same, y)


def test_jit_vmap_and_gradients():
    y = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)

    def transform(y):
        return features.cwt(y, (2.0, 20.0), "cmor1.5-1.0")

    eager = transform(y)
    assert eager.shape == (3, 2, 400)
    np.testing.assert_allclose(jax.jit(transform)(y), eager, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(transform)(y), eager, atol=1e-5)

    def loss(y):
        details = features.wavedec(y, "db4", level=2)
        power = jnp.square(transform(y).real) + jnp.square(transform(y).imag)
        return jnp.sum(power) + sum(jnp.sum(jnp.square(part)) for part in details)

    assert np.all(np.isfinite(jax.jit(jax.grad(loss))(jnp.zeros(400))))


@pytest.mark.parametrize(
    ("scales", "wavelet", "message"),
    [
        ((), "morl", "scales must be positive, finite"),
        ((1.0, -1.0), "morl", "scales must be positive, finite"),
        ((1.0, np.nan), "morl", "scales must be positive, finite"),
        ((1.0, np.inf), "morl", "scales must be positive, finite"),
        ((0.01,), "morl", "too small"),
        ((1.0,), "db4", "unknown wavelet 'db4'"),
    ],
)
def test_impossible_cwt_arguments_are_refused(scales, wavelet, message):
    with pytest.raises(ValueError, match=message):
        features.cwt(np.zeros(100), scales, wavelet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wavelet": "morl"}, "unknown wavelet 'morl'"),
        ({"mode": "smooth"}, "mode='smooth'"),
        ({"level": -1}, "level=-1"),
        ({"level": 2.7}, "level=2.7 must be a whole number of at least 0"),
        ({"level": 2.0}, "level=2.0 must be a whole number"),
        ({"level": "2"}, "level='2' must be a whole number"),
        ({"y": np.zeros(0)}, "at least one sample"),
    ],
)
def test_impossible_wavedec_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.wavedec(**{"y": np.zeros(100), "wavelet": "db4", **arguments})


@pytest.mark.fast
@pytest.mark.filterwarnings("ignore:Level value of")
@pytest.mark.parametrize("samples", range(1, 6))
def test_a_single_sample_cannot_be_reflected(relative_error, samples):
    """Like pywt, at every level; other modes extend even a single sample."""
    y = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    for level in range(1, 5):
        try:
            expected = pywt.wavedec(y.astype(np.float64), "haar", "reflect", level)
        except ValueError:
            with pytest.raises(ValueError, match="'reflect' needs two samples or more"):
                features.wavedec(y, "haar", "reflect", level)
        else:
            ours = features.wavedec(y, "haar", "reflect", level)
            assert max(map(relative_error, ours, expected)) < 1e-6
    if samples == 1:
        with pytest.raises(ValueError, match="'reflect' needs two samples or more"):
            features.dwt(y, "haar", "reflect")
        np.testing.assert_allclose(features.dwt(y, "haar"), pywt.dwt(y, "haar"), atol=1e-6)

"""The scalogram against the wavelet's own formula, evaluated at every sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from rann_jax import features


def wavelet_power(y, frequencies, sr, bandwidth, center):
    """|CWT|**2 at every sample, by the Fourier transform of the complex Morlet wavelet."""
    n = 4 * len(y)
    spectrum = np.fft.fft(y.astype(np.float64), n)
    power = []
    for frequency in frequencies:
        scale = center * sr / frequency
        response = np.exp(-(np.pi**2) * bandwidth * (scale * np.fft.fftfreq(n) - center) ** 2)
        power.append(scale * np.abs(np.fft.ifft(spectrum * response)[: len(y)]) ** 2)
    return np.array(power)


def averaged(power, hop, samples):
    """Mean of `samples` evenly spaced values from each hop, which lies around its frame."""
    frames = 1 + power.shape[-1] // hop
    padded = np.pad(power, ((0, 0), (hop // 2, hop)))[:, : frames * hop]
    return padded.reshape(len(power), frames, samples, hop // samples)[..., 0].mean(axis=-1)


@pytest.mark.parametrize("hop", [64, 128])
@pytest.mark.parametrize("wavelet", ["cmor1.5-1.0", "cmor6-1.5"])
def test_is_the_mean_power_of_the_morlet_transform(clip, relative_error, hop, wavelet):
    y, sr = clip(22050)[:15000], 22050
    parsed = pywt.ContinuousWavelet(wavelet)
    frequencies = np.geomspace(100, 6000, 9)
    power = wavelet_power(y, frequencies, sr, parsed.bandwidth_frequency, parsed.center_frequency)
    image = features.scalogram(y, sr=sr, hop_length=hop, n_bins=9, fmin=100.0, fmax=6000.0, wavelet=wavelet)
    # How many samples a frame averages grows with frequency: a power of two that holds the band.
    candidates = [averaged(power, hop, samples) for samples in (1, 2, 4, 8, 16, 32, 64)]
    chosen = []
    # Outside the clip the coefficients are not zero, which the frames at its ends see.
    for row in range(9):
        errors = [relative_error(image[row, 1:-2], one[row, 1:-2]) for one in candidates]
        assert min(errors) < 1e-3
        chosen.append(int(np.argmin(errors)))
    assert chosen == sorted(chosen)
    total = averaged(power, hop, hop).sum(axis=-1)
    np.testing.assert_allclose(np.sum(image, axis=-1), total, rtol=0.02)


def test_agrees_with_pywt_on_noise(hostile):
    y = hostile()["noise"]
    frequencies = np.geomspace(100, 1500, 12)
    coefficients, _ = pywt.cwt(
        y.astype(np.float64), 16000 / frequencies, "cmor1.5-1.0", method="fft", precision=16
    )
    expected = averaged(np.abs(coefficients) ** 2, 160, 160)
    image = features.scalogram(y, sr=16000, hop_length=160, n_bins=12, fmin=100.0, fmax=1500.0)
    # PyWavelets samples the wavelet's integral: near Nyquist that damps it by a few per cent.
    ratio = np.mean(image, axis=-1) / np.mean(expected, axis=-1)
    np.testing.assert_allclose(ratio, 1, atol=0.05)


def test_batches_jit_silence_and_gradients():
    y = np.random.default_rng(0).normal(size=(2, 2, 2000)).astype(np.float32)

    def image(y):
        return features.scalogram(y, sr=8000, hop_length=80, n_bins=10)

    eager = image(y)
    assert eager.shape == (2, 2, 10, 26)
    np.testing.assert_allclose(jax.jit(image)(y), eager, rtol=1e-4)
    np.testing.assert_allclose(image(y[1, 0]), eager[1, 0], rtol=1e-4)
    assert not np.any(image(np.zeros(2000)))
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(features.power_to_db(image(y)))))
    assert np.all(np.isfinite(gradient(jnp.zeros(2000))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wavelet": "morl"}, "no 'cmorB-C'"),
        ({"wavelet": "cmor0.1-0.1"}, "negative frequencies"),
        ({"fmin": 0.0}, "fmin=0"),
        ({"fmax": 5000.0}, "Nyquist"),
        ({"hop_length": 0}, "hop_length"),
    ],
)
def test_arguments_that_cannot_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        features.scalogram(np.zeros(1000), sr=8000, **arguments)

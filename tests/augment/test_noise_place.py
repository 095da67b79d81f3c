"""Noise, crops and rolls: levels and positions as drawn; padding and silence stay unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rann_jax import augment
from rann_jax.augment.padding import sound_length

pytestmark = pytest.mark.fast

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def padded() -> tuple[np.ndarray, np.ndarray]:
    """Zero-padded sounds of many levels, with zeros inside, and their lengths; the first sound is silent."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((64, 3000)).astype(np.float32) * 10 ** rng.uniform(-4, 0, (64, 1))
    lengths = rng.integers(100, 3001, 64)
    lengths[:3] = 0, 1, 3000
    audio[:, 50:60] = 0
    audio[1, 0] = 0.1
    for row, length in zip(audio, lengths, strict=True):
        row[length:] = 0
    return audio.astype(np.float32), lengths


def test_sound_ends_at_its_last_nonzero_sample(padded):
    audio, lengths = padded
    np.testing.assert_array_equal(sound_length(jnp.asarray(audio)), lengths)


@pytest.mark.parametrize("snr", [-10.0, 10.0, 40.0])
def test_snr_is_met_over_the_sound_alone(padded, snr):
    audio, lengths = padded
    noisy = np.asarray(augment.white_noise(KEY, jnp.asarray(audio), low_snr=snr, high_snr=snr))
    assert np.isfinite(noisy).all()
    assert not noisy[0].any()
    for clean, noise, length in zip(audio[1:], (noisy - audio)[1:], lengths[1:], strict=True):
        assert not noise[length:].any()
        power = [np.mean(np.square(x[:length], dtype=np.float64)) for x in (clean, noise)]
        assert 10 * np.log10(power[0] / power[1]) == pytest.approx(snr, abs=0.1)


@pytest.mark.parametrize("peak", [1.0, 300.0, 1e-3])
def test_snr_is_met_in_float16(peak):
    rng = np.random.default_rng(0)
    clean = jnp.asarray(peak * rng.uniform(-1, 1, (4, 100_000)), jnp.float16)
    noisy = augment.white_noise(KEY, clean, low_snr=10.0, high_snr=10.0)
    assert noisy.dtype == jnp.float16
    clean, noisy = (np.asarray(x, np.float64) for x in (clean, noisy))
    power = [np.mean(np.square(x), axis=1) for x in (clean, noisy - clean)]
    np.testing.assert_allclose(10 * np.log10(power[0] / power[1]), 10, atol=0.1)


def test_the_gradient_at_silence_is_finite():
    """A caller may differentiate through an augmentation with respect to the sound."""

    def noisy(audio):
        return jnp.sum(augment.white_noise(KEY, audio, low_snr=10.0, high_snr=10.0))

    gradient = np.asarray(jax.jit(jax.grad(noisy))(jnp.zeros((2, 30)).at[1, 5].set(0.5)))
    np.testing.assert_array_equal(gradient[0], 1)
    assert np.isfinite(gradient[1]).all()


def test_noise_is_white_gaussian_at_uniform_ratios():
    audio = jnp.ones((2000, 256), jnp.float32)
    noise = np.asarray(augment.white_noise(KEY, audio, low_snr=10.0, high_snr=40.0) - audio, np.float64)
    snr = -10 * np.log10(np.mean(np.square(noise), axis=1))
    assert stats.kstest(snr, stats.uniform(10, 30).cdf).pvalue > 0.01
    scaled = noise / np.sqrt(np.mean(np.square(noise), axis=1, keepdims=True))
    assert stats.kstest(scaled[::10].ravel(), "norm").pvalue > 0.01
    spectrum = np.mean(np.abs(np.fft.rfft(scaled)[:, 1:-1]) ** 2, axis=0) / 256
    np.testing.assert_allclose(spectrum, 1, atol=0.15)


def test_roll_turns_the_sound_and_not_the_padding(padded):
    audio, lengths = padded
    rolled = np.asarray(augment.roll(KEY, jnp.asarray(audio), share=0.5))
    moved = 0
    for before, after, length in zip(audio, rolled, lengths, strict=True):
        assert not after[length:].any()
        turns = [
            k for k in range(max(length, 1)) if np.array_equal(np.roll(before[:length], k), after[:length])
        ]
        assert turns
        moved += turns[0] != 0
    assert moved > 50


def test_roll_is_uniform_within_its_share():
    audio = jnp.zeros((4000, 1000), jnp.float32).at[:, 500].set(1).at[:, -1].set(0.5)
    shift = np.argmax(np.asarray(augment.roll(KEY, audio, share=0.2)), axis=1) - 500
    assert (shift.min(), shift.max()) == (-200, 200)
    assert stats.kstest(shift + 0.5, stats.uniform(-200, 401).cdf).pvalue > 0.01


def test_crops_are_drawn_within_the_sound():
    ramp = np.arange(1, 1001, dtype=np.float32)
    audio = np.tile(ramp, (4000, 1))
    audio[::2, 700:] = 0
    audio[0] = 0
    cut = np.asarray(augment.crop(KEY, jnp.asarray(audio), samples=500))
    assert cut.shape == (4000, 500)
    assert not cut[0].any()
    for starts, latest in ((cut[2::2, 0] - 1, 200), (cut[1::2, 0] - 1, 500)):
        assert (starts.min(), starts.max()) == (0, latest)
        assert stats.kstest(starts + 0.5, stats.uniform(0, latest + 1).cdf).pvalue > 0.01
    np.testing.assert_array_equal(np.diff(cut[1:], axis=1), 1)


def test_a_crop_in_a_policy_keeps_the_length():
    audio = jnp.ones((4, 1000), jnp.float32)
    kept, _ = augment.Crop(share=0.3)(KEY, audio, jnp.eye(4, dtype=jnp.float32))
    assert kept.shape == audio.shape
    np.testing.assert_array_equal(sound_length(kept), 300)


@pytest.mark.parametrize("samples", [0, 1001])
def test_impossible_crops_are_refused(samples):
    with pytest.raises(ValueError, match=f"{samples} samples"):
        augment.crop(KEY, jnp.ones((2, 1000), jnp.float32), samples=samples)

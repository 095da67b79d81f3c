"""Between-class mixing against a float64 transcription of the paper's formulas, on real sound."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from scipy import stats

from rann_jax import augment
from rann_jax.augment.between_class import mix_ratio

KEY = jax.random.key(7)
WINDOWS = {8000: 1024, 16000: 2048, 44100: 4096}  # 16 and 44.1 kHz: from the authors' code


def level(sound: np.ndarray, rate: int) -> float:
    """Return G of Tokozume et al. in float64: the maximum A-weighted sound pressure level of any window."""
    n = WINDOWS[rate]
    f2 = np.linspace(0, rate / 2, n // 2 + 1) ** 2
    with np.errstate(divide="ignore"):
        response = (12194**2 * f2**2) / (
            (f2 + 20.6**2) * np.sqrt((f2 + 107.7**2) * (f2 + 737.9**2)) * (f2 + 12194**2)
        )
        weight = np.maximum(20 * np.log10(response) + 2.0, -80)
    window = np.hanning(n + 1)[:-1]
    levels = []
    for start in range(0, len(sound) - n + 1, n // 2):
        power = np.abs(np.fft.rfft(window * sound[start : start + n].astype(np.float64))) ** 2
        levels.append(10 * np.log10(max(np.sum(power * 10 ** (weight / 10)), 1e-8)))
    return max(levels)


def transcription(x1, x2, r: float, rate: int) -> np.ndarray:
    t = 1 / (1 + 10 ** ((level(x1, rate) - level(x2, rate)) / 20) * (1 - r) / r)
    x1, x2 = x1.astype(np.float64), x2.astype(np.float64)
    return (t * x1 + (1 - t) * x2) / np.sqrt(t**2 + (1 - t) ** 2)


@pytest.fixture(scope="module")
def clips(data_dir) -> np.ndarray:
    """Eight 2 s clips at 16 kHz with gains from -80 to 0 dB; one is zero after 0.5 s, one is silent."""
    files = sorted((data_dir / "esc50_16k" / "audio").glob("1-*.ogg"))[::50][:8]
    audio = np.stack([soundfile.read(file, frames=32000, dtype="float32")[0] for file in files])
    audio *= 10 ** np.linspace(-4, 0, 8, dtype=np.float32)[:, None]
    audio[3, 8000:] = 0
    audio[5] = 0
    return audio


def check_mixed(audio: np.ndarray, rate: int) -> None:
    """Compare each output with the transcription, for the partner and ratio that its label shows."""
    identity = jnp.eye(len(audio), dtype=jnp.float32)
    mixed, labels = jax.jit(lambda x, y: augment.between_class(KEY, x, y, sample_rate=rate))(audio, identity)
    mixed, labels = np.asarray(mixed), np.asarray(labels)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    for own, (x, label) in enumerate(zip(mixed, labels, strict=True)):
        (other,) = (other for other in np.nonzero(label)[0] if other != own)
        expected = transcription(audio[own], audio[other], float(label[own]), rate)
        np.testing.assert_allclose(x, expected, atol=2e-5 * np.abs(expected).max() + 1e-12)


def test_real_clips_are_mixed_as_the_formula_says(clips):
    check_mixed(clips, 16000)


@pytest.mark.fast
@pytest.mark.parametrize("rate", WINDOWS)
def test_noise_is_mixed_as_the_formula_says(rate):
    rng = np.random.default_rng(1)
    levels = np.asarray([1, 0.1, 1e-3, 0, 1, 3])[:, None]
    check_mixed((levels * rng.standard_normal((6, rate // 2))).astype(np.float32), rate)


@pytest.mark.fast
def test_integer_sound_is_mixed_as_float32():
    audio = np.random.default_rng(1).normal(0, 3000, (6, 4000)).astype(np.int16)
    check_mixed(audio, 8000)
    for count in (1, 6):
        mixed, _ = augment.between_class(KEY, audio[:count], np.eye(count), sample_rate=8000)
        assert mixed.dtype == jnp.float32


@pytest.mark.fast
@pytest.mark.parametrize("rate", WINDOWS)
def test_sound_pressure_is_that_of_the_loudest_window(rate):
    rng = np.random.default_rng(2)
    audio = (rng.standard_normal((4, rate)) * np.linspace(0.1, 1, rate)).astype(np.float32)
    audio[3] = 0
    pressure = jax.jit(partial(augment.sound_pressure, sample_rate=rate))
    found = pressure(audio)
    np.testing.assert_allclose(found, [level(x, rate) for x in audio], atol=1e-3)
    padded = np.pad(audio[:, : WINDOWS[rate] * 3], [(0, 0), (0, rate)])
    unpadded = pressure(audio[:, : WINDOWS[rate] * 3])
    np.testing.assert_allclose(pressure(padded), unpadded, atol=1e-3)


@pytest.mark.fast
def test_clips_shorter_than_a_window_have_a_level():
    level_db = augment.sound_pressure(jnp.ones((2, 100), jnp.float32), sample_rate=44100)
    assert np.isfinite(level_db).all()


@pytest.mark.fast
def test_a_weighting_is_that_of_the_standard():
    """IEC 61672-1, table 3."""
    weights = augment.a_weighting(40000, 4000)
    for frequency, decibels in ((100, -19.1), (250, -8.6), (1000, 0.0), (2500, 1.3), (10000, -2.5)):
        assert weights[frequency // 10] == pytest.approx(decibels, abs=0.1)


@pytest.mark.fast
def test_equal_levels_mix_at_the_ratio_of_the_labels():
    r = jnp.asarray([0.0, 0.25, 0.5, 1.0])
    level_db = jnp.asarray([10.0, 10.0, 10.0, 10.0])
    np.testing.assert_allclose(mix_ratio(r, level_db, level_db), r, rtol=1e-6)


@pytest.mark.fast
def test_a_batch_of_one_stays_as_it_is():
    audio = np.random.default_rng(0).standard_normal((1, 640)).astype(np.float32)
    mixed, labels = augment.between_class(KEY, jnp.asarray(audio), np.asarray([[0, 1]]), sample_rate=640)
    np.testing.assert_array_equal(mixed, audio)
    np.testing.assert_array_equal(labels, [[0, 1]])


@pytest.mark.fast
def test_ratio_is_uniform():
    audio, identity = jnp.ones((2000, 64), jnp.float32), jnp.eye(2000, dtype=jnp.float32)
    _, labels = augment.between_class(KEY, audio, identity, sample_rate=640)
    assert stats.kstest(np.diag(np.asarray(labels)), stats.uniform.cdf).pvalue > 0.01

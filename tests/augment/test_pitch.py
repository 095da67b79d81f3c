"""Pitch shifting against librosa, and its resampling against libsoxr: tones, spectra, padding, silence."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soxr
from scipy import stats

from rann_jax import augment
from rann_jax.augment.interpolation import MOST_SAMPLES, resample_each
from rann_jax.augment.padding import sound_length
from tests.augment.vocoder import RATE, by_librosa, cents, in_room, log_spectral_distance, real_clips, tone

SEMITONES = (-2.0, -0.7, 0.4, 2.0)
shifted = jax.jit(functools.partial(augment.pitch_shift, highest=2.0), static_argnames="n_fft")
resampled = jax.jit(resample_each, static_argnames="samples")


@pytest.mark.fast
def test_a_tone_has_the_shifted_pitch_and_the_same_duration():
    out = np.asarray(shifted(in_room(*[tone()] * 4), jnp.asarray(SEMITONES, jnp.float32)))
    for y, semitones in zip(out, SEMITONES, strict=True):
        assert abs(cents(y[: len(tone())], 440 * 2 ** (semitones / 12))) < 5
        assert abs(int(sound_length(jnp.asarray(y[None]))[0]) - len(tone())) <= 2


def by_librosa_shifted(y: np.ndarray, semitones: float, *, clamp: bool) -> np.ndarray:
    rate = 2 ** (-semitones / 12)
    stretched = by_librosa(y, rate, clamp=clamp)
    return librosa.util.fix_length(
        librosa.resample(stretched, orig_sr=RATE / rate, target_sr=RATE), size=len(y)
    )


# librosa 1.0 passes deprecated arguments to its own functions, and its numba phase kernel warns about a cast.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:The `.*` parameter is deprecated:FutureWarning")
def test_real_clips_are_nearer_to_librosa_than_its_versions_are(data_dir):
    """Means over clips. Seen: 0.038 to 0.063 dB, while librosa 0.11 and 1.0 are 0.09 to 0.13 dB apart."""
    clips = real_clips(data_dir)
    for semitones in SEMITONES:
        out = np.asarray(shifted(in_room(*clips), jnp.full(len(clips), semitones, jnp.float32)))
        found, bound = [], []
        for ours, y in zip(out, clips, strict=True):
            theirs = librosa.effects.pitch_shift(y, sr=RATE, n_steps=semitones)
            old, new = (by_librosa_shifted(y, semitones, clamp=clamp) for clamp in (False, True))
            assert min(np.abs(theirs - version).max() for version in (old, new)) < 1e-2 * np.abs(y).max()
            found.append(log_spectral_distance(ours[: len(y)], theirs))
            bound.append(log_spectral_distance(old, new))
        assert np.mean(found) <= np.mean(bound), (semitones, found, bound)


@pytest.mark.fast
@pytest.mark.parametrize("step", [0.9375, 1.125])
def test_resampling_equals_libsoxr(step):
    """Noise covers every frequency. float32 holds the ratios exactly; otherwise the two would drift apart."""
    y = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    y[6000:] = 0
    samples = round(9000 / step)
    ours = np.asarray(resampled(y[None], jnp.asarray([step], jnp.float32), samples=samples))[0]
    theirs = soxr.resample(y, 16000 * step, 16000)
    assert len(theirs) == samples
    # The beginning differs by up to 0.02, where libsoxr's stages start up.
    assert np.std(ours - theirs) < 2e-3


@pytest.mark.fast
def test_raising_the_pitch_does_not_alias():
    """A tone at 0.95 of the Nyquist frequency leaves the band and must not fold back below it."""
    wave = np.sin(0.95 * np.pi * np.arange(20000)).astype(np.float32)
    up, down = np.asarray(
        shifted(jnp.asarray(np.stack([wave, wave])), jnp.asarray([2.0, -2.0], jnp.float32))
    )[:, 5000:-5000]
    assert np.std(up) < 1e-4
    assert np.std(down) > 0.4


@pytest.mark.fast
def test_resampling_positions_keep_their_fractions_to_the_end():
    """Plain float32 would round the positions to 1/16 of a sample here."""
    length, step = 300_000, 1.0 + 2**-20
    angle = 2 * np.pi * 0.2
    y = np.cos(angle * np.arange(length)).astype(np.float32)
    samples = length - 1000
    out = np.asarray(resampled(y[None], jnp.asarray([step], jnp.float32), samples=samples))[0]
    expected = np.cos(angle * step * np.arange(samples))
    np.testing.assert_allclose(out[1000:], expected[1000:], atol=1e-3)
    with pytest.raises(ValueError, match="shorter crops"):
        resampled(y[None], jnp.asarray([step], jnp.float32), samples=MOST_SAMPLES + 1)


@pytest.mark.fast
def test_padding_does_not_change_the_sound():
    """A clip sounds the same with and without padding, and zeros follow it."""
    y = np.random.default_rng(0).standard_normal(9001).astype(np.float32)
    semitones = jnp.asarray([1.5, -1.5], jnp.float32)
    alone, padded = (
        np.asarray(shifted(jnp.asarray(np.pad(y, (0, behind))[None].repeat(2, 0)), semitones, n_fft=512))
        for behind in (0, 5000)
    )
    np.testing.assert_allclose(padded[:, :9001], alone, atol=1e-3)
    assert (padded[:, 8990:9001] != 0).any(axis=1).all()
    assert not padded[:, 9001:].any()


@pytest.mark.fast
def test_silence_and_clicks_stay_finite():
    audio = np.zeros((3, 4000), np.float32)
    audio[1, 0] = audio[2, 2000] = 1
    out = np.asarray(shifted(jnp.asarray(audio), jnp.asarray([-2.0, 0.0, 2.0], jnp.float32), n_fft=512))
    assert np.isfinite(out).all()
    assert not out[0].any()


@pytest.mark.fast
def test_semitones_are_drawn_between_the_lowest_and_the_highest():
    rate, batch = 8000, 50
    wave = np.sin(2 * np.pi * 1000 * np.arange(8000) / rate).astype(np.float32)
    pitch = augment.Pitch(sample_rate=rate, lowest=-1.0, highest=1.5)
    audio, labels = jnp.asarray(np.tile(wave, (batch, 1))), jnp.ones((batch, 1), jnp.float32)
    out, _ = jax.jit(pitch)(jax.random.key(7), audio, labels)
    spectra = np.abs(np.fft.rfft(np.asarray(out)[:, 1000:7000] * np.hanning(6000), 2**16))
    semitones = 12 * np.log2(spectra.argmax(axis=1) * rate / 2**16 / 1000)
    assert semitones.min() > -1.02
    assert semitones.max() < 1.52
    assert stats.kstest(semitones, stats.uniform(-1, 2.5).cdf).pvalue > 0.01


@pytest.mark.fast
def test_windows_fit_the_sample_rate():
    """They last about 46 ms: 512 samples at 8 kHz."""
    audio, pitch = jax.random.normal(jax.random.key(0), (2, 4000)), augment.Pitch(sample_rate=8000)
    semitones = pitch.draw(jax.random.key(7), audio)
    out, _ = jax.jit(pitch)(jax.random.key(7), audio, jnp.ones((2, 1)))
    np.testing.assert_allclose(out, shifted(audio, semitones, n_fft=512), rtol=0, atol=1e-5)

"""Stretching against librosa: pitch and duration of a tone, spectra of real clips, padding, silence."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soundfile
from scipy import stats

from rann_jax import augment
from rann_jax.augment.padding import sound_length

RATES = (0.8, 0.93, 1.1, 1.25)
RATE, ROOM = 22050, 60000
stretched = jax.jit(augment.stretch)


def by_librosa(y: np.ndarray, rate: float, *, clamp: bool) -> np.ndarray:
    """Transcription: behind the last frame, 0.11 sees zeros, 1.0 that frame again, magnitudes going on.

    0.11 also adds each bin's own turns to its phase, which grows large and is rounded to float32.
    """
    spectra = librosa.stft(y)
    last = spectra.shape[1] - 1
    at = np.arange(0, last + 1, rate, dtype=np.float64)
    left = np.floor(at).astype(int)
    share = at - left
    angle, magnitude = np.angle(spectra), np.abs(spectra)
    behind = 2 * magnitude[:, -1:] - magnitude[:, -2:-1] if clamp else 0 * magnitude[:, :1]
    magnitude = np.concatenate([magnitude, behind], axis=1)
    angle = np.concatenate([angle, angle[:, -1:] if clamp else 0 * angle[:, :1]], axis=1)
    advance = angle[:, left + 1] - angle[:, left]
    if not clamp:
        turn = 512 * 2 * np.pi * np.fft.rfftfreq(2048)[:, None]
        off = advance - turn
        advance = (turn + off - 2 * np.pi * np.round(off / (2 * np.pi))).astype(np.float32)
    phase = np.cumsum(np.concatenate([angle[:, :1], advance[:, :-1]], axis=1), axis=1)
    loud = (1 - share) * magnitude[:, left] + share * magnitude[:, left + 1]
    return librosa.istft(loud * np.exp(1j * phase), length=round(len(y) / rate))


def log_spectral_distance(a: np.ndarray, b: np.ndarray) -> float:
    """RMS over bins, mean over frames, in dB; the loudest 80 dB count."""
    power = [np.abs(librosa.stft(x.astype(np.float32))) ** 2 for x in (a, b)]
    floor = 1e-8 * max(p.max() for p in power)
    first, second = (10 * np.log10(np.maximum(p, floor)) for p in power)
    return float(np.mean(np.sqrt(np.mean((first - second) ** 2, axis=0))))


def in_room(*sounds: np.ndarray) -> jax.Array:
    return jnp.asarray(np.stack([np.pad(y, (0, ROOM - len(y))) for y in sounds]))


@pytest.fixture(scope="module")
def clips(data_dir) -> list[np.ndarray]:
    """Four clips of real sound of 1.5 s or more that end in sound."""
    files = sorted((data_dir / "esc50_16k" / "audio").glob("2-*.ogg"))[::40]
    sounds = [soundfile.read(file, frames=45000, dtype="float32")[0] for file in files]
    return [y for y in (np.trim_zeros(y, "b") for y in sounds) if len(y) > 24000][:4]


@functools.cache
def tone() -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


@pytest.mark.fast
def test_a_tone_keeps_its_pitch_and_lasts_as_long_as_it_must():
    out = np.asarray(stretched(in_room(*[tone()] * 4), jnp.asarray(RATES, jnp.float32)))
    for y, rate in zip(out, RATES, strict=True):
        length = round(2 * RATE / rate)
        assert abs(int(sound_length(jnp.asarray(y[None]))[0]) - length) <= 2
        spectrum = np.abs(np.fft.rfft(y[:length] * np.hanning(length), 2**19))
        found = np.argmax(spectrum) * RATE / 2**19
        assert abs(1200 * np.log2(found / 440)) < 5


# librosa 1.0 calls itself with arguments that it deprecates, and its numba kernel of phases warns of a cast.
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:The `.*` parameter is deprecated:FutureWarning")
def test_real_clips_are_as_near_to_librosa_as_its_versions_are(clips):
    """Mean over clips and rates. What is left at 1.1 is the rounding of 0.11's phases: both are 0.034 dB."""
    found, bound = [], []
    for rate in RATES:
        out = np.asarray(stretched(in_room(*clips), jnp.full(len(clips), rate, jnp.float32)))
        for ours, y in zip(out, clips, strict=True):
            theirs = librosa.effects.time_stretch(y, rate=rate)
            old, new = (by_librosa(y, rate, clamp=clamp) for clamp in (False, True))
            assert min(np.abs(theirs - version).max() for version in (old, new)) < 1e-2 * np.abs(y).max()
            found.append(log_spectral_distance(ours[: len(theirs)], theirs))
            bound.append(log_spectral_distance(old, new))
    assert np.mean(found) <= np.mean(bound), (found, bound)


@pytest.mark.fast
def test_padding_is_not_sound():
    """A clip in a longer batch sounds as alone, and what follows it is zero."""
    y = np.random.default_rng(0).standard_normal(9001).astype(np.float32)
    rate = jnp.asarray([1.2], jnp.float32)
    alone = np.asarray(augment.stretch(jnp.asarray(y[None]), rate, n_fft=512))[0]
    padded = np.asarray(augment.stretch(jnp.asarray(np.pad(y, (0, 5000))[None]), rate, n_fft=512))[0]
    length = round(9001 / 1.2)
    np.testing.assert_allclose(padded[:9001], alone, atol=1e-4)
    assert padded[length - 1] != 0
    assert not padded[length:].any()


@pytest.mark.fast
def test_silence_and_clicks_stay_finite():
    audio = np.zeros((3, 4000), np.float32)
    audio[1, 0] = audio[2, 2000] = 1
    out = np.asarray(
        augment.stretch(jnp.asarray(audio), jnp.asarray([0.8, 1.0, 1.25], jnp.float32), n_fft=512)
    )
    assert np.isfinite(out).all()
    assert not out[0].any()


@pytest.mark.fast
def test_rates_are_drawn_between_the_slowest_and_the_fastest():
    audio = jnp.ones((100, 2000), jnp.float32)
    out, _ = augment.Stretch(sample_rate=8000, slowest=1.0, fastest=1.25)(
        jax.random.key(7), audio, jnp.ones((100, 1), jnp.float32)
    )
    rate = 2000 / np.asarray(sound_length(out))
    assert rate.min() >= 0.999
    assert stats.kstest(np.log2(rate), stats.uniform(0, np.log2(1.25)).cdf).pvalue > 0.01

"""Every front end gives an image of exactly the promised size, and log_mel the paper's image."""

import dataclasses
import math
import typing
import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features
from rann_jax.features import FRONT_ENDS, ImageFrontEnd, WaveformFrontEnd, front_end
from rann_jax.features.front_end import ImageName, WaveformName

RATES = (8000, 16000, 22050, 32000, 44100, 48000)


def parts(inputs) -> dict:
    """Return a front end's outputs by name; most return only an image."""
    return inputs if isinstance(inputs, dict) else {"image": inputs}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_shape_at_every_rate(name, rate):
    # Tracing the front end is enough to know its shapes.
    made = front_end(name, sample_rate=rate, seconds=2.0)
    frames = 2 * rate // made.hop_length + 1 if name.startswith("panns") else 256
    assert (made.name, made.sample_rate, made.n_frames) == (name, rate, frames)
    assert made.n_samples == 2 * rate
    inputs = jax.eval_shape(made, jax.ShapeDtypeStruct((3, 2 * rate), np.float32))
    sizes = {"image": (3, made.n_bins, frames), "waveform": (3, 2 * rate)}
    for part, made_of_it in parts(inputs).items():
        assert (made_of_it.shape, made_of_it.dtype) == (sizes[part], np.float32)


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_sound_of_another_length_gives_the_same_shape(name):
    made = front_end(name, sample_rate=16000, seconds=1.0)
    inputs, shorter, longer = (
        jax.eval_shape(made, jax.ShapeDtypeStruct((3, length), np.float32))
        for length in (16000, 15223, 24000)
    )
    assert inputs == shorter == longer


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_real_sound_and_silence_give_finite_images(clip, name):
    made = front_end(name, sample_rate=16000, seconds=1.0, frames_per_second=32)
    y = np.stack([np.resize(clip(16000), 16000), np.zeros(16000, np.float32)])
    for part in parts(made(y)).values():
        assert np.all(np.isfinite(part))
        assert np.std(part[0]) > 0
    gradient = jax.jit(jax.grad(lambda y: sum(map(jnp.sum, parts(made(y)).values()))))
    assert np.all(np.isfinite(gradient(jnp.zeros(16000))))


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_front_ends_compare_and_hash_by_value(name):
    made = front_end(name, sample_rate=16000, seconds=1.0, frames_per_second=32)
    again = front_end(name, **dataclasses.asdict(made))
    assert again == made
    assert hash(again) == hash(made)


@pytest.mark.parametrize("rate", RATES)
def test_log_mel_equals_the_paper(clip, rate):
    made = front_end("log_mel", sample_rate=rate, seconds=1.0)
    y = np.resize(clip(rate), rate)
    hop = {8000: 63, 16000: 125, 22050: 172, 32000: 250, 44100: 345, 48000: 375}[rate]
    window = {8000: 250, 16000: 501, 22050: 690, 32000: 1001, 44100: 1380, 48000: 1502}[rate]
    mel = librosa.feature.melspectrogram(
        y=np.pad(y, (0, hop)),
        sr=rate,
        n_fft=window,
        hop_length=hop,
        fmin=50,
        fmax=min(14000, rate / 2),
    )
    expected = librosa.power_to_db(mel, top_db=None)[:, :128]
    np.testing.assert_allclose(made(y), expected, atol=2e-3, rtol=0)


def test_panns_log_mel_equals_librosa(clip):
    """10 s at 32 kHz give 1001 frames; the settings are those of the published code."""
    y = np.resize(clip(32000), 320_000)
    mel = librosa.feature.melspectrogram(
        y=y, sr=32000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14000, pad_mode="reflect"
    )
    image = front_end("panns_log_mel", 32000, 10.0, 100)(y)
    assert image.shape == (64, 1001)
    np.testing.assert_allclose(image, librosa.power_to_db(mel, top_db=None), atol=5e-3, rtol=0)


@pytest.mark.parametrize("rate", RATES)
def test_panns_frames_reach_the_end_of_the_clip(rate):
    """The hop divides the clip, so the last frame is centred on the sample after it."""
    made = front_end("panns_log_mel", rate, 0.4, 50)
    assert made.n_samples % made.hop_length == 0
    assert made(np.zeros(made.n_samples, np.float32)).shape == (64, 21)


@pytest.fixture(scope="module")
def second(clip):
    """One second at 22.05 kHz, and the same followed by zeros, as the front ends see it."""
    y = np.resize(clip(22050), 22050)
    return y, np.pad(y, (0, 1000))


def test_mfcc_equals_librosa(second, relative_error):
    y, padded = second
    expected = librosa.feature.mfcc(
        y=padded, sr=22050, n_mfcc=40, n_mels=40, n_fft=690, hop_length=172, fmin=50
    )
    image = front_end("mfcc", sample_rate=22050, seconds=1.0, n_bins=40)(y)
    # The zeros after the clip do not change the peak, so the floor 80 dB below it is the same.
    assert relative_error(image, expected[:, :128]) < 2e-6


def test_gfcc_equals_spafe(second, relative_error):
    gfcc = pytest.importorskip("spafe.features.gfcc").gfcc
    window = pytest.importorskip("spafe.utils.preprocessing").SlidingWindow
    y, padded = second
    emphasised = np.append(padded[0], padded[1:] - 0.97 * padded[:-1])
    expected = gfcc(
        np.pad(emphasised, (345, 345)),
        fs=22050,
        num_ceps=40,
        pre_emph=False,
        window=window(690.5 / 22050, 172.5 / 22050, "hamming"),
        nfilts=64,
        nfft=690,
        low_freq=50,
        high_freq=11025,
    ).T
    made = front_end("gfcc", sample_rate=22050, seconds=1.0, n_bins=40, n_filters=64)
    assert relative_error(made(y)[:, :126], expected[:, :126]) < 1e-5


def test_chroma_equals_librosa(second, relative_error):
    y, padded = second
    expected = librosa.feature.chroma_stft(y=padded, sr=22050, hop_length=172, tuning=0.0)
    image = front_end("chroma", sample_rate=22050, seconds=1.0)(y)
    assert relative_error(image, expected[:, :128]) < 5e-5


def test_cqt_equals_librosa_at_the_resampled_rate(second, relative_error):
    y, padded = second
    made = front_end("cqt", sample_rate=22050, seconds=1.0, n_bins=60, bins_per_octave=12)
    # Five octaves, up to 987.8 Hz: the hop is a multiple of 16, so the rate is a multiple of 16 * 128 Hz.
    slower = librosa.resample(padded, orig_sr=22050, target_sr=4096, scale=True)
    magnitude = np.abs(librosa.cqt(slower, sr=4096, hop_length=32, n_bins=60, tuning=0.0))
    amplitude = 10 ** (np.asarray(made(y)) / 20)
    assert relative_error(amplitude[:, :120], np.maximum(magnitude, 1e-5)[:, :120]) < 2e-5


def test_cqt_of_low_notes_uses_a_reachable_rate():
    """An octave needs 138 Hz, 64 hops a second need 192 Hz; 256 Hz is the lowest within a factor of 128."""
    made = front_end("cqt", 32768, 1.0, 64, n_bins=12, bins_per_octave=12)
    image = jax.eval_shape(made, jax.ShapeDtypeStruct((1, 32768), np.float32))
    assert image.shape == (1, 12, 64)


def test_cqt_is_close_to_librosa_at_an_odd_hop(clip):
    """The octaves' rates differ, because librosa computes all octaves at 16 kHz for a hop of 125."""
    y = np.resize(clip(16000), 16000)
    made = front_end("cqt", sample_rate=16000, seconds=1.0, n_bins=72)
    ours = np.asarray(made(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        direct = librosa.cqt(y, sr=16000, hop_length=125, n_bins=72, bins_per_octave=10, tuning=0.0)
    expected = librosa.amplitude_to_db(np.abs(direct), top_db=None)[:, :128]
    loud = expected > np.max(expected) - 60
    error = np.abs(ours - expected)[loud]
    assert np.median(error) < 0.15
    assert np.quantile(error, 0.99) < 1.5


def test_tempogram_equals_librosa(second, relative_error):
    y, padded = second
    padded = padded[: 127 * 172 + 1] if len(y) < 127 * 172 + 1 else y
    expected = librosa.feature.tempogram(y=padded, sr=22050, hop_length=172, win_length=100)
    made = front_end("tempogram", sample_rate=22050, seconds=1.0, n_bins=80, win_length=100)
    assert relative_error(made(y)[:, :128], expected[:80, :128]) < 2e-5


def test_short_and_long_clips_are_padded_and_cut(clip):
    made = front_end("log_mel", sample_rate=16000, seconds=1.0)
    y = clip(16000)[:9000]
    padded = np.pad(y, (0, 7000))
    np.testing.assert_array_equal(made(y), made(padded))
    louder = np.concatenate([padded, np.ones(4000, np.float32)])
    np.testing.assert_array_equal(made(louder), made(padded))


@pytest.mark.fast
def test_geometry_that_is_not_given_is_the_front_ends_own():
    """PANNs' window, hop and frames at 32 kHz are those of Kong et al., 2020; the others have the paper's."""
    for given in ({}, {"sample_rate": 32000, "seconds": 10.0}):
        made = front_end("panns_log_mel", **given)
        assert (made.sample_rate, made.n_fft, made.hop_length) == (32000, 1024, 320)
        image = jax.eval_shape(made, jax.ShapeDtypeStruct((1, made.n_samples), np.float32))
        assert image.shape == (1, 64, 1001)
    made = front_end("log_mel")
    assert (made.sample_rate, made.hop_length, made.n_frames) == (44100, 345, 1024)


def test_options_reach_the_feature(clip):
    made = front_end("log_mel", sample_rate=16000, seconds=1.0, frames_per_second=50, n_bins=40, fmin=20.0)
    y = np.resize(clip(16000), 16000)
    expected = features.power_to_db(
        features.melspectrogram(y, sr=16000, n_fft=501, hop_length=320, n_mels=40, fmin=20.0, fmax=8000.0),
        top_db=None,
    )
    np.testing.assert_allclose(made(y), expected[:, :50], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logmel", {}, "unknown front end 'logmel'.*did you mean 'log_mel'"),
        ("log_mel", {"n_bin": 3}, "no option 'n_bin'.*did you mean 'n_bins'"),
        ("log_mel", {"seconds": 0.99}, "not a whole number: use seconds=0.9921875"),
        ("log_mel", {"seconds": 0.0}, "must be positive"),
        ("log_mel", {"seconds": math.nan}, "must be positive"),
        ("log_mel", {"seconds": math.inf}, "must be positive"),
        ("log_mel", {"frames_per_second": math.inf}, "must be positive"),
        ("log_mel", {"sample_rate": 0}, "sample_rate"),
        ("log_mel", {"sample_rate": 8000, "fmax": 5000.0}, "above Nyquist"),
        ("log_mel", {"n_fft": 512}, "shorter than the window"),
        ("log_mel", {"win_length": 0}, "win_length must be a positive integer, got 0"),
        ("gfcc", {"win_length": -1}, "win_length must be a positive integer, got -1"),
        ("chroma", {"n_fft": 1}, "n_fft=1 has no bin above 0 Hz"),
        ("gfcc", {"n_fft": 1024}, "shorter than the window"),
        ("mfcc", {"n_mels": 64}, "as many bands"),
        ("tempogram", {"n_bins": 400}, "too few for 400 lags"),
        ("cwt", {"wavelet": "haar"}, "must have the form 'cmorB-C'"),
        ("cqt", {"bins_per_octave": 4}, "Nyquist"),
        ("cqt", {"bins_per_octave": 0}, "bins_per_octave must be a positive integer"),
        ("cqt", {"bins_per_octave": 24, "fmin": 0.0}, "fmin=0 Hz must be positive"),
        ("log_mel", {"norm": -1}, "norm=-1 must be"),
        ("cqt", {"fmin": 14000.0}, "fmin=14000 Hz must be above 0 and below 14000 Hz"),
        ("cqt", {"sample_rate": 8000, "fmin": 3200.0}, "below 3200 Hz"),
    ],
)
def test_impossible_options_are_refused_at_once(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        front_end(name, **options)
    assert "\n" not in str(error.value)


def test_an_integer_waveform_is_refused():
    made = front_end("log_mel", sample_rate=8000, seconds=1.0)
    with pytest.raises(ValueError, match="32768"):
        made(np.zeros((1, 8000), np.int16))


def test_a_front_end_that_makes_another_image_is_refused():
    class Half(FRONT_ENDS["chroma"]):
        def features(self, y):
            return super().features(y)[..., ::2, :]

    with pytest.raises(ValueError, match=r"front end 'chroma' made an image \(6, 128\), not \(12, 128\)"):
        Half(sample_rate=8000, seconds=1.0)(np.zeros(8000, np.float32))


@pytest.mark.fast
def test_type_checkers_are_told_what_each_front_end_returns():
    images = {name for name, cls in FRONT_ENDS.items() if issubclass(cls, ImageFrontEnd)}
    waveforms = {name for name, cls in FRONT_ENDS.items() if issubclass(cls, WaveformFrontEnd)}
    assert images == set(typing.get_args(ImageName))
    assert waveforms == set(typing.get_args(WaveformName))
    assert images | waveforms == FRONT_ENDS.keys()
    assert not images & waveforms


def test_filters_that_are_given_out_can_be_changed():
    front_end("panns_log_mel").mel_filters()[:] = 0
    assert front_end("panns_log_mel").mel_filters().any()

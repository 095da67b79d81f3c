"""Every front end gives an image of exactly the promised size, and log_mel the paper's image."""

import dataclasses

import jax
import librosa
import numpy as np
import pytest

from rann_jax import features
from rann_jax.features import FRONT_ENDS, front_end

RATES = (8000, 16000, 22050, 32000, 44100, 48000)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_shape_at_every_rate(name, rate):
    # Shapes are known without computing: making the front end and tracing it is enough.
    made = front_end(name, sample_rate=rate, seconds=2.0)
    assert (made.name, made.sample_rate, made.n_frames) == (name, rate, 256)
    assert made.n_samples == 2 * rate
    for length in (2 * rate, 2 * rate - 777, 3 * rate):
        y = jax.ShapeDtypeStruct((3, length), np.float32)
        image = jax.eval_shape(made, y)
        assert (image.shape, image.dtype) == ((3, made.n_bins, 256), np.float32)


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_real_sound_and_silence_give_finite_images(clip, name):
    made = front_end(name, sample_rate=16000, seconds=1.0, frames_per_second=32)
    y = np.stack([np.resize(clip(16000), 16000), np.zeros(16000, np.float32)])
    image = made(y)
    assert image.shape == (2, made.n_bins, 32)
    assert np.all(np.isfinite(image))
    assert np.std(image[0]) > 0


@pytest.mark.parametrize("name", sorted(FRONT_ENDS))
def test_is_a_value(name):
    made = front_end(name, sample_rate=16000, seconds=1.0, frames_per_second=32)
    again = front_end(name, **dataclasses.asdict(made))
    assert again == made
    assert hash(again) == hash(made)


@pytest.mark.parametrize("rate", RATES)
def test_log_mel_is_the_papers(clip, rate):
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


def test_short_and_long_clips_are_fitted(clip):
    made = front_end("log_mel", sample_rate=16000, seconds=1.0)
    y = clip(16000)[:9000]
    padded = np.pad(y, (0, 7000))
    np.testing.assert_array_equal(made(y), made(padded))
    louder = np.concatenate([padded, np.ones(4000, np.float32)])
    np.testing.assert_array_equal(made(louder), made(padded))


def test_options_reach_the_feature(clip):
    made = front_end(
        "log_mel", sample_rate=16000, seconds=1.0, frames_per_second=50, n_bins=40, fmin=20.0
    )
    y = np.resize(clip(16000), 16000)
    expected = features.power_to_db(
        features.melspectrogram(
            y, sr=16000, n_fft=501, hop_length=320, n_mels=40, fmin=20.0, fmax=8000.0
        ),
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
        ("log_mel", {"sample_rate": 0}, "sample_rate"),
        ("log_mel", {"sample_rate": 8000, "fmax": 5000.0}, "above Nyquist"),
        ("log_mel", {"n_fft": 512}, "shorter than the window"),
    ],
)
def test_what_cannot_work_is_refused_at_once(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        front_end(name, **options)
    assert "\n" not in str(error.value)


def test_an_integer_waveform_is_refused():
    made = front_end("log_mel", sample_rate=8000, seconds=1.0)
    with pytest.raises(ValueError, match="32768"):
        made(np.zeros((1, 8000), np.int16))

"""Decoding, compared with direct calls of soundfile and soxr."""

import numpy as np
import pytest
import soundfile
import soxr

from input_pipeline import audio
from tests.input_pipeline.conftest import encoded, noise


@pytest.mark.parametrize(
    "clip",
    [
        "esc10_44k1/audio/1-100032-A-0.ogg",
        "fsdd/audio/7_jackson_3.flac",
        "ravdess/audio/03-01-01-01-01-01-01.ogg",
    ],
)
def test_a_real_clip_equals_soundfile_and_soxr(data_dir, clip):
    samples, rate = soundfile.read(data_dir / clip, dtype="float32")
    expected = soxr.resample(samples, rate, 16000, "HQ")
    got = audio.resample(audio.decode(data_dir / clip), 16000)
    np.testing.assert_array_equal(got.samples, expected)
    assert (got.rate, got.source_rate, got.channels) == (16000, rate, 1)


def test_a_real_stereo_clip_is_averaged(data_dir):
    stereo = [
        path
        for path in sorted((data_dir / "ravdess" / "audio").iterdir())
        if soundfile.info(path).channels == 2
    ]
    assert len(stereo) == 5  # as the data set's own notes say
    samples, _ = soundfile.read(stereo[0], dtype="float32")
    got = audio.decode(stereo[0])
    assert got.channels == 2
    np.testing.assert_allclose(got.samples, (samples[:, 0] + samples[:, 1]) / 2, atol=1e-7)


@pytest.mark.fast
def test_pcm_16_passes_through_bit_for_bit(tmp_path):
    pcm = np.random.default_rng(0).integers(-32768, 32767, 5000, np.int16, endpoint=True)
    soundfile.write(tmp_path / "a.wav", pcm, 16000, subtype="PCM_16")
    samples, clipped = audio.to_int16(audio.decode(tmp_path / "a.wav").samples)
    np.testing.assert_array_equal(samples, pcm)
    assert clipped == 0


@pytest.mark.parametrize(
    ("suffix", "subtype", "atol"),
    [
        ("wav", "PCM_U8", 1 / 127),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-6),
        ("wav", "DOUBLE", 1e-6),
        ("flac", "PCM_16", 1 / 32767),
        ("ogg", "VORBIS", None),
        ("mp3", "MPEG_LAYER_III", None),
    ],
)
def test_formats(tmp_path, suffix, subtype, atol):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([tone] * 2, axis=1), 22050, subtype=subtype)
    got = audio.decode(path)
    assert (len(got.samples), got.source_rate, got.channels) == (22050, 22050, 2)
    assert got.samples.dtype == np.float32
    lossy = atol is None
    np.testing.assert_allclose(got.samples, tone, rtol=0, atol=0.05 if lossy else atol)


def test_six_channels_and_a_wrong_suffix(tmp_path):
    channels = noise(6 * 1000).reshape(1000, 6).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, 192000, subtype="FLOAT")
    (tmp_path / "a.wav").rename(tmp_path / "a.mp3")
    got = audio.decode(tmp_path / "a.mp3")
    np.testing.assert_allclose(got.samples, channels.mean(axis=1), atol=1e-7)


@pytest.mark.fast
def test_rounding_and_clipping():
    samples, clipped = audio.to_int16(np.float32([0, 0.5 / 32768, 1.5 / 32768, -1, 1, 1.5, -2]))
    np.testing.assert_array_equal(samples, [0, 0, 2, -32768, 32767, 32767, -32768])
    assert clipped == 3  # includes 1.0: int16 ends one step below it


def heard(content: bytes) -> np.ndarray:
    """Return the samples as a program that decodes while listening gets them."""
    with audio.stream(content) as opened:
        return np.concatenate(list(opened.blocks))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not decodable"),
        (b"RIFF and then nothing of the kind", "not decodable"),
        (encoded(np.zeros(0)), "no samples"),
        (encoded(np.array([0.1, np.nan]), subtype="FLOAT"), "NaN or infinite"),
        (encoded(np.array([0.1, np.inf]), subtype="FLOAT"), "NaN or infinite"),
        (encoded(np.zeros(8001)), "^longer than max_seconds=1$"),
    ],
    ids=["empty", "not_a_wave", "no_samples", "nan", "infinite", "too_long"],
)
def test_reasons_for_rejection(content, reason):
    with pytest.raises(audio.AudioError, match=reason) as caught:
        audio.decode(content, max_seconds=1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
def test_a_sound_as_long_as_the_limit_is_accepted():
    assert len(audio.decode(encoded(np.zeros(8000)), max_seconds=1.0).samples) == 8000


@pytest.mark.fast
@pytest.mark.parametrize("take", [audio.decode, heard])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(20000 * noise(8000), subtype="FLOAT"), "100% of its samples exceed full scale"),
        (
            encoded(20000 * noise(8000), subtype="DOUBLE"),
            "exceed full scale, which is 1.0 for floats: rescale it",
        ),
        (encoded(np.pad(20000 * noise(800), (0, 72000)), subtype="FLOAT"), "100% of its samples exceed"),
        (encoded(1e12 * noise(8000), subtype="FLOAT"), r"samples of 5e\+11 times full scale"),
        (encoded(noise(8000), rate=900), "its rate is 900 Hz, not between 1000 and 768000"),
    ],
    ids=["float", "double", "silent_else", "absurd", "rate"],
)
def test_rejected_in_training_and_in_use(take, content, reason):
    with pytest.raises(audio.AudioError, match=reason) as caught:
        take(content)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
@pytest.mark.parametrize("take", [audio.decode, heard])
def test_a_loud_master_is_accepted(take):
    """Up to a tenth of the samples that are not silent may lie beyond full scale."""
    loud = np.zeros(8000, np.float32)
    loud[:1000], loud[:100] = 0.5, -1.5
    got = take(encoded(loud, subtype="FLOAT"))
    np.testing.assert_array_equal(getattr(got, "samples", got), loud)
    loud[100] = 1.5
    with pytest.raises(audio.AudioError, match="10% of its samples exceed full scale"):
        take(encoded(loud, subtype="FLOAT"))


@pytest.mark.fast
@pytest.mark.parametrize("take", [audio.decode, heard])
def test_samples_at_full_scale_do_not_exceed_it(take):
    square = np.tile(np.float32([1, -1]), 4000)
    got = take(encoded(square, subtype="FLOAT"))
    np.testing.assert_array_equal(getattr(got, "samples", got), square)


def test_truncated_flac_is_rejected(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(48000), 16000)
    content = (tmp_path / "a.flac").read_bytes()
    with pytest.raises(audio.AudioError, match="not decodable"):
        audio.decode(content[: len(content) // 2])


@pytest.mark.fast
@pytest.mark.parametrize("name", ["song.m4a", "my song.MP4", "talk.webm"])
def test_kinds_that_are_not_read_come_with_a_way_to_convert_them(name, tmp_path):
    (tmp_path / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(400))
    quoted = f"'{name}'" if " " in name else name
    wav = quoted.replace(name, f"{name.partition('.')[0]}.wav")
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(tmp_path / name)
    suffix = name[name.index(".") :]
    assert str(caught.value) == (
        f"not decodable: {suffix} is not read, but wav, flac, ogg, opus, mp3 and aiff are: convert it with "
        f"ffmpeg -i {quoted} {wav}"
    )


@pytest.mark.fast
def test_a_missing_file_of_such_a_kind_needs_no_conversion(tmp_path):
    with pytest.raises(audio.AudioError, match=r"^not decodable: System error\.$"):
        audio.decode(tmp_path / "absent.m4a")


def test_missing_file(tmp_path):
    with pytest.raises(audio.AudioError, match="not decodable"):
        audio.decode(tmp_path / "absent.wav")


@pytest.mark.fast
def test_pad_or_crop():
    np.testing.assert_array_equal(audio.pad_or_crop(np.arange(1, 4), 5), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(audio.pad_or_crop(np.arange(1, 4), 2), [1, 2])

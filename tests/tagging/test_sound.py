"""What counts as a sound: types, scales and rates of blocks and files that models hear or refuse."""

import numpy as np
import pytest
import soundfile

from input_pipeline.audio import AudioError
from rann_jax.tagging.listener import Listener
from rann_jax.tagging.timeline import WindowProbabilities, joined

pytestmark = pytest.mark.fast


class Peak(Listener):
    """Scores a window by its peak, which shows the full scale that was assumed."""

    labels, task, sample_rate, crop_samples, batch_size = ("peak",), "tagging", 16000, 8, 2

    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        return WindowProbabilities(np.abs(windows).max(axis=1, keepdims=True))


@pytest.mark.parametrize("rate", [16000, 32000])
def test_blocks_of_int16_are_the_same_sound(rate):
    """Blocks of int16, as microphones give them, cut anywhere, one empty and one as equal float values."""
    pcm = np.array([100, -29999, 300, 16384, 0, -32768, 7, 8, 9, 10, 11, -12000] * 3, np.int16)
    blocks = [pcm[:5], pcm[5:5], pcm[5:30].astype(np.float64) / 32768, pcm[30:]]
    streamed = joined(list(Peak().stream(blocks, rate)))
    expected = Peak().timeline(pcm, rate)
    np.testing.assert_allclose(streamed.probabilities, expected.probabilities, atol=1e-6)
    if rate == 16000:
        np.testing.assert_array_equal(streamed.probabilities[:3, 0], [1, 1, 29999 / 32768])


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_samples_in_the_byte_order_of_another_machine(dtype):
    """As np.frombuffer gives those of AIFF and SPHERE files."""
    wave = (0.5 * np.arange(20) if dtype != np.int16 else 1000 * np.arange(20)).astype(dtype) / dtype(20)
    wave = wave.astype(dtype)
    swapped = wave.astype(wave.dtype.newbyteorder())
    heard, expected = (Peak().timeline(given, 16000).probabilities for given in (swapped, wave))
    np.testing.assert_array_equal(heard, expected)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (np.zeros(9, np.int32), r"floating-point or int16, not int32: use wave / 2\*\*31$"),
        (
            np.zeros(9, np.int64),
            "not int64: divide by the full scale of its samples, such as 32768 for 16 bits$",
        ),
        (np.zeros(9, np.uint8), r"not uint8: use \(wave - 128.0\) / 128$"),
        (np.zeros(9, bool), "floating-point or int16, not bool$"),
        (np.zeros((9, 2), np.float32), r"mono \(N,\).*\(9, 2\): average the channels, wave.mean\(axis=1\)$"),
        (np.zeros((2, 9), np.int16), r"\(2, 9\): average the channels, wave.mean\(axis=0\) / 32768$"),
        (np.zeros((0, 2)), r"not of shape \(0, 2\)$"),
        (16000, r"not of shape \(\): give the samples, then their rate in Hz$"),
        ("dog.ogg", r"'dog.ogg' is a path, not samples: tag_file, timeline_file and stream_file take paths$"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, -np.inf], np.float32), "NaN or infinite"),
        (np.array([0.0, -1e30]), "samples of 1e[+]30 times full scale"),
    ],
    ids=[
        *("int32", "int64", "uint8", "bool", "stereo", "channels first", "no frames", "the rate", "a path"),
        *("nan", "infinity", "loud"),
    ],
)
def test_blocks_that_are_not_sound_are_refused(block, says):
    """`stream` refuses what `tag` refuses, but only on reaching the block, since a stream may never end."""
    parts = Peak().stream([np.zeros(16, np.float32), block], 16000)
    with pytest.raises(ValueError, match=says):
        list(parts)
    with pytest.raises(ValueError, match=says):
        Peak().tag(block, 16000)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_at_integer_scale_are_refused(dtype):
    """As in a file of floats, a tenth of the sounding samples may exceed full scale, but not more."""
    loud = np.r_[np.zeros(100), np.tile([0.5, -0.5], 45), np.full(10, 1.5)].astype(dtype)
    assert Peak().tag(loud, 16000)
    says = "100% of its samples exceed full scale, which is 1.0 for floats: divide them by their integer sc"
    for wave in (np.array([0, 900, -12000, 32512], dtype), np.ones(1, dtype) * 2):
        for method in (Peak().tag, Peak().timeline, lambda w, r: Peak().probabilities([w], r)):
            with pytest.raises(ValueError, match=f"{says}ale, such as 32768, or give int16"):
                method(wave, 16000)
    with pytest.raises(ValueError, match="11% of its samples exceed full scale"):
        Peak().tag(np.append(loud, dtype(1.5)), 16000)


def test_a_loud_block_of_a_stream_is_not_judged_by_itself():
    """A bang may fill a block, and a decoded mp3 may exceed full scale."""
    blocks = [np.full(8, 0.1), np.full(8, 1.5), np.full(100, 0.1)]
    peaks = joined(list(Peak().stream(blocks, 16000))).probabilities
    assert peaks.max() == 1.5


def test_a_stream_at_integer_scale_is_refused_at_its_end():
    """The whole stream is judged as `tag` judges a sound, so its windows come before the error."""
    blocks = [np.full(8, 0.1), np.full(8, 900.0), np.full(50, 0.1), np.zeros(100)]
    parts = Peak().stream(blocks, 16000)
    assert next(parts).probabilities.max() == 900
    with pytest.raises(ValueError, match="12% of its samples exceed full scale, which"):
        list(parts)
    assert list(Peak().stream([*blocks, np.full(20, 0.1)], 16000))
    assert list(Peak().stream([np.full(8, 30000, np.int16)], 16000))


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0, 1, -16000, 768_001])
def test_impossible_rates_are_refused(rate):
    """The resampler would not terminate for NaN and would make days of sound from 1 Hz."""
    with pytest.raises(ValueError, match=f"sample_rate={rate}: it must be between 1000 and 768000 Hz"):
        Peak().tag(np.ones(9), rate)


@pytest.mark.parametrize(
    ("rate", "hop", "says"),
    [
        ("44100", None, "sample_rate must be a number, got '44100'"),
        (None, None, "sample_rate must be a number, got None"),
        (np.zeros(9), None, "sample_rate must be a number, got array"),
        (16000, "1", "hop_seconds must be a number, got '1'"),
    ],
)
def test_arguments_that_are_no_numbers_are_refused(rate, hop, says):
    with pytest.raises(ValueError, match=says):
        Peak().tag(np.ones(9), rate, hop_seconds=hop)


def test_a_stream_without_samples_has_no_windows():
    assert list(Peak().stream([], 16000)) == list(Peak().stream([np.zeros(0, np.int16)], 16000)) == []


def test_files_are_the_sounds_in_them(tmp_path):
    """Channels are averaged, and the parts of a long file make its timeline."""
    path = tmp_path / "stereo.flac"
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2))
    soundfile.write(path, wave, 32000, subtype="PCM_24")
    expected = Peak().timeline(wave.mean(axis=1), 32000, hop_seconds=4 / 16000)
    whole = Peak().timeline_file(path, hop_seconds=4 / 16000)
    parts = list(Peak().stream_file(str(path), hop_seconds=4 / 16000))
    assert max(map(len, parts)) == 2
    np.testing.assert_array_equal(whole.starts, expected.starts)
    for found in (whole, joined(parts)):
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    tags = Peak().tag(wave.mean(axis=1), 32000)
    assert Peak().tag_file(path) == pytest.approx(tags, abs=1e-5)


@pytest.mark.parametrize("method", ["tag_file", "timeline_file"])
def test_files_that_are_not_sounds_are_refused(method, tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "torn.wav").write_bytes((tmp_path / "empty.wav").read_bytes()[:20])
    for name, says in (
        ("absent.wav", "no such file"),
        ("empty.wav", "no samples"),
        ("torn.wav", "not decodable"),
    ):
        with pytest.raises(AudioError, match=f"^{tmp_path / name}: {says}"):
            getattr(Peak(), method)(tmp_path / name)
    soundfile.write(tmp_path / "good.wav", np.zeros(9), 16000)
    with pytest.raises(ValueError, match="hop_seconds=7"):
        getattr(Peak(), method)(tmp_path / "good.wav", hop_seconds=7)

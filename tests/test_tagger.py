"""The tagger of a trained workdir: any rate and length, and a bounded number of compiled programs."""

import dataclasses
import pickle
import re
import runpy
import shutil
import typing

import jax
import numpy as np
import pytest
import soundfile
import soxr

import rann_jax
from input_pipeline.audio import AudioError
from input_pipeline.datasets.quickstart import synthesise
from rann_jax import export, hear
from rann_jax.errors import ConfigError
from rann_jax.listener import Listener, in_batches
from rann_jax.timeline import WindowProbabilities, joined
from rann_jax.windows import resampled, sliding
from tests.refusals import assert_one_error


@pytest.mark.fast
def test_lazily_imported_names_are_listed_and_typed(monkeypatch):
    """Otherwise a type checker would take `Tagger` for an `object`, which has no `load`."""
    monkeypatch.setattr(typing, "TYPE_CHECKING", True)
    as_checked = runpy.run_path(rann_jax.__file__)
    for name in ("Tagger", "TaggerEnsemble"):
        assert name in dir(rann_jax)
        assert as_checked[name] is getattr(rann_jax, name)


@pytest.fixture(scope="module")
def tagger(tiny_workdir):
    return rann_jax.Tagger.load(tiny_workdir, batch_size=2)


def sound(seconds: float, rate: int = 16000) -> np.ndarray:
    rng = np.random.default_rng(1)
    wave = np.concatenate([synthesise("siren", rng) for _ in range(int(seconds) + 2)])
    return soxr.resample(wave, 16000, rate)[: int(seconds * rate)].astype(np.float32)


def test_tag_is_sorted_and_named(tagger):
    tags = tagger.tag(sound(1.3), 16000)
    assert set(tags) == set(tagger.labels)
    assert list(tags.values()) == sorted(tags.values(), reverse=True)
    assert sum(tags.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tagger, rate):
    """A sound at another rate gets the tags of the same sound resampled by hand."""
    wave = sound(1.5, rate)
    by_hand = soxr.resample(wave, rate, 16000, quality="HQ")
    ours, expected = tagger.probabilities([wave], rate), tagger.probabilities([by_hand], 16000)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_sound_shorter_than_a_sample_of_the_slower_rate(tagger):
    assert tagger.timeline(np.ones(1, np.float32), 192000).stops.tolist() == [1 / 16000]


def test_int16_is_the_same_sound(tagger):
    pcm = np.rint(sound(1.0) * 32767).astype(np.int16)
    as_float = pcm.astype(np.float32) / 32768
    np.testing.assert_array_equal(tagger.probabilities([pcm], 16000), tagger.probabilities([as_float], 16000))


@pytest.mark.parametrize("seconds", [0.01, 0.5, 0.51, 3.0])
def test_timeline_covers_the_sound(tagger, seconds):
    timeline = tagger.timeline(sound(seconds), 16000, hop_seconds=0.2)
    assert timeline.starts[0] == 0
    assert timeline.stops[-1] == pytest.approx(seconds)
    assert np.all(np.diff(timeline.starts) <= 0.2 + 1e-9)
    assert timeline.probabilities.shape == (len(timeline.starts), 10)


def test_streaming_is_the_timeline(tagger):
    """The result does not depend on how the sound is cut into blocks."""
    wave = sound(4.0, 22050)
    whole = tagger.timeline(wave, 22050)
    blocks = np.split(wave, [1, 700, 30000, 30001])
    streamed = joined(list(tagger.stream(blocks, 22050)))
    np.testing.assert_allclose(streamed.starts, whole.starts)
    np.testing.assert_allclose(streamed.stops, whole.stops)
    np.testing.assert_allclose(streamed.probabilities, whole.probabilities, atol=1e-5)


class Peak(Listener):
    """Scores a window by its peak, which shows the full scale that was assumed."""

    labels, task, sample_rate, crop_samples, batch_size = ("peak",), "tagging", 16000, 8, 2

    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        return WindowProbabilities(np.abs(windows).max(axis=1, keepdims=True))


@pytest.mark.fast
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


@pytest.mark.fast
@pytest.mark.parametrize(
    ("block", "says"),
    [
        (np.zeros(9, np.int32), r"floating-point or int16, not int32: use wave / 2\*\*31$"),
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
        *("int32", "uint8", "bool", "stereo", "channels first", "no frames", "the rate", "a path"),
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


@pytest.mark.fast
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


@pytest.mark.fast
def test_a_loud_block_of_a_stream_is_not_judged_by_itself():
    """A bang may fill a block, and a decoded mp3 may exceed full scale."""
    blocks = [np.full(8, 0.1), np.full(8, 1.5), np.full(100, 0.1)]
    peaks = joined(list(Peak().stream(blocks, 16000))).probabilities
    assert peaks.max() == 1.5


@pytest.mark.fast
def test_a_stream_at_integer_scale_is_refused_at_its_end():
    """The whole stream is judged as `tag` judges a sound, so its windows come before the error."""
    blocks = [np.full(8, 0.1), np.full(8, 900.0), np.full(50, 0.1), np.zeros(100)]
    parts = Peak().stream(blocks, 16000)
    assert next(parts).probabilities.max() == 900
    with pytest.raises(ValueError, match="12% of its samples exceed full scale, which"):
        list(parts)
    assert list(Peak().stream([*blocks, np.full(20, 0.1)], 16000))
    assert list(Peak().stream([np.full(8, 30000, np.int16)], 16000))


@pytest.mark.fast
@pytest.mark.parametrize("rate", [float("nan"), float("inf"), 0, 1, -16000, 768_001])
def test_impossible_rates_are_refused(rate):
    """The resampler would not terminate for NaN and would make days of sound from 1 Hz."""
    with pytest.raises(ValueError, match=f"sample_rate={rate}: it must be between 1000 and 768000 Hz"):
        Peak().tag(np.ones(9), rate)


@pytest.mark.fast
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


@pytest.mark.fast
def test_a_stream_without_samples_has_no_windows():
    assert list(Peak().stream([], 16000)) == list(Peak().stream([np.zeros(0, np.int16)], 16000)) == []


def test_lengths_compile_a_bounded_number_of_programs():
    """Each shape that the step is given means one compiled program."""
    shapes = set()

    def step(variables, windows):
        shapes.add(windows.shape)
        return windows

    for count in range(1, 20):
        windows = np.random.default_rng(count).uniform(-1, 1, (count, 5))
        np.testing.assert_array_equal(in_batches(step, None, windows, 6), windows)
    assert shapes == {(1, 5), (2, 5), (4, 5), (6, 5)}


def test_the_next_batch_is_computed_while_one_is_fetched():
    events = []

    class Result:
        def __init__(self, number):
            self.number = number
            events.append(f"dispatch {number}")

        def __array__(self, dtype=None, copy=None):
            events.append(f"fetch {self.number}")
            return np.full(2, self.number)

    def step(variables, windows):
        return Result(int(windows[0, 0]))

    said = in_batches(step, None, np.arange(5.0)[:, None], 2)
    assert said.tolist() == [0, 0, 2, 2, 4]
    assert events == ["dispatch 0", "dispatch 2", "fetch 0", "dispatch 4", "fetch 2", "fetch 4"]


def test_no_windows_give_empty_arrays(tagger):
    """The empty arrays have the same trailing shapes and types as the result for one window."""
    none = np.zeros((0, tagger.crop_samples), np.float32)
    one = np.zeros((1, tagger.crop_samples), np.float32)
    for said in (tagger.predict, tagger.embed_windows):
        of_none, of_one = said(none), said(one)
        assert of_none.shape == (0, *of_one.shape[1:])
        assert of_none.dtype == of_one.dtype
    assert tagger.infer(none).conflict is None


@pytest.mark.parametrize("method", ["predict", "infer", "embed_windows"])
def test_windows_of_another_length_are_refused(tagger, method):
    """The front end would crop a sound of five seconds to its first window, silently."""
    apply, size = getattr(tagger, method), tagger.crop_samples
    for shape in ((1, 10 * size), (2, 100), (0, 100), (size,), (1, 1, size)):
        says = rf"windows must be \(W, {size}\), .* Hz, not {re.escape(str(shape))}: tag, timeline, prob"
        with pytest.raises(ValueError, match=says):
            apply(np.zeros(shape, np.float32))


@pytest.mark.parametrize("method", ["predict", "embed_windows"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_windows_that_are_not_finite_are_refused(tagger, method, wrong):
    windows = np.zeros((3, tagger.crop_samples), np.float32)
    windows[1, 7] = wrong
    with pytest.raises(ValueError, match="windows have NaN or infinite samples"):
        getattr(tagger, method)(windows)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_tags_are_the_mean_of_the_timeline(tagger, count):
    """`tag` and `probabilities`, for sounds of several lengths, share this definition."""
    waves = [sound(seconds) for seconds in (0.3, 1.2, 0.9)[:count]]
    expected = [tagger.timeline(wave, 16000).probabilities.mean(axis=0) for wave in waves]
    together = tagger.probabilities(waves, 16000)
    assert together.shape == (count, 10)
    for wave, mean, row in zip(waves, expected, together, strict=True):
        np.testing.assert_allclose(row, mean, atol=1e-6)
        tags = tagger.tag(wave, 16000)
        np.testing.assert_allclose([tags[label] for label in tagger.labels], mean, atol=1e-6)


@pytest.mark.fast
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


@pytest.mark.fast
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


def test_it_says_what_it_is(tagger):
    says = "Tagger(rann-0.5x4-1, log_mel, 10 classes, 16000 Hz, windows of 0.5 s)"
    assert repr(tagger) == says
    assert repr(hear.Model(tagger)) == f"Model({says})"


def test_it_can_be_pickled(tagger):
    """As for a pool of processes; compiled programs are left behind."""
    again = pickle.loads(pickle.dumps(tagger))
    assert repr(again) == repr(tagger)
    assert again.batch_size == 2
    wave = sound(0.7)
    np.testing.assert_array_equal(again.probabilities([wave], 16000), tagger.probabilities([wave], 16000))


def test_hear_names_and_shapes(tagger):
    model = hear.Model(tagger)
    audio = np.stack([sound(0.5), -sound(0.5)])
    scene = hear.get_scene_embeddings(audio, model)
    stamps, times = hear.get_timestamp_embeddings(audio, model)
    assert scene.shape == (2, model.scene_embedding_size) == (2, 128)
    assert stamps.shape == (2, 10, model.timestamp_embedding_size)
    np.testing.assert_allclose(times, np.tile(np.arange(10) * 50.0, (2, 1)))
    # The window at 250 ms covers the whole sound.
    np.testing.assert_allclose(stamps[:, 5], scene, rtol=1e-4, atol=1e-5)


def test_hear_takes_what_the_tagger_takes(tagger):
    model = hear.Model(tagger)
    audio = np.stack([sound(0.5), -sound(0.5)])
    whole = (audio * 32767).astype(np.int16)
    stamps, _ = hear.get_timestamp_embeddings(whole, model)
    expected, _ = hear.get_timestamp_embeddings(whole / np.float32(32768), model)
    np.testing.assert_array_equal(stamps, expected)
    for embeddings in (hear.get_timestamp_embeddings, hear.get_scene_embeddings):
        for shape in ((0, 8000), (2, 0), (8000,)):
            with pytest.raises(ValueError, match=r"audio must be \(n_sounds, n_samples\)"):
                embeddings(np.zeros(shape, np.float32), model)
        for wrong, says in ((np.nan, "NaN"), (12000, "100% of its samples exceed full scale")):
            with pytest.raises(ValueError, match=says):
                embeddings(np.full((1, 800), wrong, np.float32), model)


def test_the_embedding_is_what_the_last_layer_sees(tagger):
    wave = sound(0.5)
    last = tagger.variables["params"]["fc2"]
    logits = tagger.embed(wave, 16000) @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    expected = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(tagger.probabilities([wave], 16000)[0], expected, atol=1e-5)


def test_the_embedding_is_the_mean_over_all_windows(tagger):
    """Three windows make a batch of two and one of one, which must not count as much."""
    wave = sound(1.0)
    windows = np.stack([wave[start : start + 8000] for start in (0, 4000, 8000)])
    expected = tagger.embed_windows(windows).mean(axis=0)
    np.testing.assert_allclose(tagger.embed(wave, 16000), expected, rtol=1e-5, atol=1e-6)


def test_probabilities_of_tagging_are_sigmoids(tagger):
    """The same weights as those of classification, but each class is a separate question."""
    config = tagger.experiment.config.copy_and_resolve_references()
    config.task = "tagging"
    experiment = dataclasses.replace(tagger.experiment, config=config)
    same = rann_jax.Tagger(experiment, tagger.variables, tagger.labels, batch_size=1)
    last, wave = tagger.variables["params"]["fc2"], sound(0.5)
    logits = tagger.embed(wave, 16000) @ np.asarray(last["kernel"]) + np.asarray(last["bias"])
    expected = np.asarray(jax.nn.sigmoid(logits))
    np.testing.assert_allclose(same.probabilities([wave], 16000)[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (np.zeros(0, np.float32), "empty"),
        (np.zeros((2, 8), np.float32), "mono"),
        (np.full(8, np.nan), "NaN"),
        (np.zeros(8, np.int32), "int16"),
    ],
    ids=["empty", "stereo", "nan", "int32"],
)
def test_arrays_that_are_not_sound_are_refused(tagger, wave, says):
    with pytest.raises(ValueError, match=says):
        tagger.tag(wave, 16000)


@pytest.mark.parametrize("hop", [0.0, -1.0, 0.6, float("nan"), float("inf")])
def test_a_wrong_hop_is_refused(tagger, hop):
    with pytest.raises(ValueError, match="hop_seconds"):
        tagger.timeline(sound(1.0), 16000, hop_seconds=hop)


@pytest.mark.fast
def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no checkpoints"):
        rann_jax.Tagger.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="no complete checkpoint"):
        rann_jax.Tagger.load(tmp_path)


@pytest.mark.fast
def test_a_file_of_weights_is_not_a_workdir(tmp_path):
    weights = tmp_path / "Cnn14_mAP=0.431.pth"
    weights.touch()
    with pytest.raises(ConfigError, match=f"{weights} is a file, .*: rann_jax.convert makes a workdir of"):
        rann_jax.Tagger.load(weights)


def test_the_best_checkpoint_is_loaded_on_request(tiny_workdir, second_workdir, tmp_path):
    """Step 2, with other weights, was not evaluated, so step 1 is the best."""
    run, unevaluated = tmp_path / "run", shutil.ignore_patterns("metrics")
    shutil.copytree(tiny_workdir, run)
    steps = [folder / "checkpoints" / step for folder, step in ((second_workdir, "1"), (run, "2"))]
    shutil.copytree(*steps, ignore=unevaluated)
    for checkpoint, origin in (("best", tiny_workdir), ("latest", second_workdir)):
        found, expected = rann_jax.Tagger.load(run, checkpoint=checkpoint), rann_jax.Tagger.load(origin)
        np.testing.assert_array_equal(
            found.variables["params"]["fc2"]["kernel"], expected.variables["params"]["fc2"]["kernel"]
        )


@pytest.fixture
def two_checkpoints(tiny_workdir, tmp_path):
    """A workdir with the same weights at steps 1 and 2, so that the files of step 2 can be damaged."""
    shutil.copytree(tiny_workdir, tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "checkpoints" / "1", tmp_path / "run" / "checkpoints" / "2")
    return tmp_path / "run"


def cut(path):
    path.write_bytes(path.read_bytes()[:20])


# Orbax closes its event loop at the first unreadable array, while it still reads others.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damaged", ["record/metadata", "state/manifest.ocdbt"])
def test_a_damaged_latest_checkpoint_is_passed_over(two_checkpoints, tagger, damaged, capsys):
    """The tagger skips it, as training and evaluation do, and leaves its folder unchanged."""
    cut(two_checkpoints / "checkpoints" / "2" / damaged)
    loaded = rann_jax.Tagger.load(two_checkpoints)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: ")
    assert "checkpoint 2 cannot be read" in said[0]
    assert loaded.labels == tagger.labels
    leaves = (jax.tree.leaves(each.variables) for each in (loaded, tagger))
    for ours, theirs in zip(*leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (two_checkpoints / "checkpoints" / "2").is_dir()


def test_unreadable_records_are_one_line(two_checkpoints, capsys):
    """The program ends with one line and exit code 2."""
    for step in ("1", "2"):
        cut(two_checkpoints / "checkpoints" / step / "record" / "metadata")
    for checkpoint in ("latest", "best"):
        assert export.main([str(two_checkpoints), "--to=safetensors", f"--checkpoint={checkpoint}"]) == 2
        assert_one_error(capsys.readouterr().err, f"{two_checkpoints}/checkpoints/2/record")


@pytest.mark.fast
@pytest.mark.parametrize("cuts", [[], [5], [1, 2, 3, 50, 51]], ids=str)
@pytest.mark.parametrize("length", [1, 9, 10, 11, 13, 14, 97])
def test_windows_are_slices_of_the_sound(length, cuts):
    """A window starts every four samples, and one ends with the sound; each start occurs once."""
    wave = np.arange(1, length + 1, dtype=np.float32)
    blocks = np.split(wave, [cut for cut in cuts if cut < length])
    starts = []
    for start, stop, window in sliding(blocks, 10, 4):
        np.testing.assert_array_equal(window[: stop - start], wave[start:stop])
        assert not window[stop - start :].any()
        starts.append(start)
    assert stop == length
    assert starts == sorted({0, *range(0, length - 9, 4), max(0, length - 10)})


@pytest.mark.fast
@pytest.mark.parametrize("rate", [8000, 44100])
def test_resampling_a_stream_is_resampling_the_whole(rate):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 150001).astype(np.float32)
    stream = np.concatenate(list(resampled(np.split(wave, [17, 90000]), 16000, rate)))
    np.testing.assert_allclose(stream, soxr.resample(wave, 16000, rate, quality="HQ"), atol=1e-5)

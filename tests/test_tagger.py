"""The tagger of a trained workdir: any rate and length, and a bounded number of compiled programs."""

import dataclasses
import json
import pickle
import re
import runpy
import shutil
import typing

import jax
import numpy as np
import pytest
import soxr

import rann_jax
from input_pipeline.datasets.quickstart import synthesise
from rann_jax import export, hear
from rann_jax.errors import ConfigError
from rann_jax.tagging import listener
from rann_jax.tagging.listener import in_batches
from rann_jax.tagging.timeline import joined
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


def test_few_windows_are_held_at_a_time(tagger, monkeypatch):
    waves = [sound(seconds) for seconds in (0.3, 2.3, 1.2)]
    expected, held, predict = tagger.probabilities(waves, 16000), [], tagger.predict
    monkeypatch.setattr(listener, "BATCHES", 1)
    monkeypatch.setattr(tagger, "predict", lambda windows: held.append(len(windows)) or predict(windows))
    np.testing.assert_allclose(tagger.probabilities(waves, 16000), expected, atol=1e-6)
    assert sum(held) == 1 + 9 + 4  # every quarter of a second
    assert max(held) == tagger.batch_size


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
    record = steps[1] / "record" / "metadata"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"batches": 2}))
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

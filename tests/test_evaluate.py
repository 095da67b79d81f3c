"""Evaluation: which clips and data are scored, how batches are read, and by which measures."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from input_pipeline import prepare
from rann_jax import distributed
from rann_jax import evaluate as evaluation
from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.evaluate import SplitEvaluator, measures, readable
from rann_jax.experiment import build, data_options
from rann_jax.main import run
from rann_jax.saved import predictions
from rann_jax.saved.workdir import save_config
from rann_jax.tasks import MEASURES
from rann_jax.training.start import restore_or_create
from tests.tiny_folds import get_config, write_sound

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")


@pytest.mark.fast
@pytest.mark.parametrize("task", MEASURES)
def test_measures_of_a_task_by_hand(task):
    """Targets by rank are 1, 0, 1 for class 0 and 1, 0, 0 for class 1: AP 5/6 and 1, AUC 1/2 and 1.

    Two of the three clips are right.
    """
    targets = np.array([[1, 0], [0, 1], [1, 0]])
    scores = np.array([[0.9, 0.1], [0.8, 0.5], [0.7, 0.3]])
    found = dict(measures(task, targets, scores))
    assert tuple(found) == MEASURES[task]
    assert found["mAP"] == pytest.approx((5 / 6 + 1) / 2)
    if task == "classification":
        assert found["accuracy"] == pytest.approx(2 / 3)
        assert found["macro_f1"] == pytest.approx((4 / 5 + 0) / 2)  # class 0: both of 2 found, 3 predicted
    else:
        assert found["mAUC"] == pytest.approx((1 / 2 + 1) / 2)
        assert found["d_prime"] == pytest.approx(2**0.5 * 0.6744897501960817)  # upper normal quartile


def save_untrained(workdir, config):
    """Save what training leaves, without the minute of compilation."""
    data = prepare(**data_options(config), progress=False)
    checkpoints = Checkpoints(workdir, config.best_metric)
    checkpoints.save(0, *restore_or_create(build(config), data, checkpoints, distributed.data_mesh()), {})
    checkpoints.close()
    save_config(workdir, config)


def evaluate(folder, config):
    return run(config, folder / "run", mode="eval", checkpoint="latest", quiet=True)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Folder, config and scores of an untrained checkpoint on 20 sounds, one of which is broken."""
    folder = tmp_path_factory.mktemp("evaluated")
    for label in ("cat", "dog"):
        for i in range(10):
            write_sound(folder / "sounds" / label / f"{label}{i}.wav", i)
    config = get_config()
    config.data_dir, config.prepared_dir = str(folder / "sounds"), str(folder / "prepared")
    config.prepare.max_failed_share = 0.5
    (folder / "sounds" / "cat" / "cat3.wav").write_bytes(b"not a sound")
    config.splits.test = config.splits.train = "+".join(f"fold{k}" for k in range(1, 6))
    save_untrained(folder / "run", config)
    return folder, config, evaluate(folder, config)


def test_clips_left_out_are_counted_and_scores_are_stored(evaluated):
    folder, _, scores = evaluated
    assert "test: 19 of 20 clips" in list(readable(scores))
    stored = json.loads((folder / "run" / "predictions" / "test.json").read_text())
    predicted = np.load(folder / "run" / "predictions" / "test.npz")
    assert stored["scores"] == scores
    assert stored["step"] == predicted["step"] == 0
    assert stored["fingerprint"] == predicted["fingerprint"]


def test_other_data_is_scored_with_a_warning(evaluated, tmp_path, capsys):
    folder, config, _ = evaluated
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    write_sound(tmp_path / "sounds" / "cat" / "cat3.wav", 3)  # repaired in the meantime
    other = config.copy_and_resolve_references()
    other.data_dir = str(tmp_path / "sounds")
    scores = evaluate(tmp_path, other)
    assert "test: 20 of 20 clips" in list(readable(scores))
    assert "warning: the data of test is not what this run was started with" in capsys.readouterr().err
    before, now = (
        json.loads((where / "run" / "predictions" / "test.json").read_text()) for where in (folder, tmp_path)
    )
    assert before["fingerprint"] != now["fingerprint"]


def test_folds_that_were_dealt_anew_are_warned_of(tmp_path, capsys):
    """One clip more moves clips from the training folds to the test fold, unless a table says the folds."""
    sounds = tmp_path / "sounds"
    for seed, name in enumerate(f"{label}/{label}{i}.wav" for label in ("cat", "dog") for i in range(10)):
        write_sound(sounds / name, seed)
    config = get_config()
    config.data_dir, config.prepared_dir = str(sounds), str(tmp_path / "prepared")
    config.splits = {"train": "fold1+fold2+fold3+fold4", "test": "fold5"}
    save_untrained(tmp_path / "run", config)
    data = prepare(**data_options(config), progress=False)
    trained = {row.id for row in data.manifest(config.splits.train).rows}

    write_sound(sounds / "cat" / "new.wav", 20)
    evaluate(tmp_path, config)
    tested = np.load(tmp_path / "run" / "predictions" / "test.npz")["ids"]
    assert len(trained & set(tested)) >= 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "fingerprint" in line]
    assert line.startswith("warning: the data of test is not what this run was started with (its fingerprint")
    assert "config.dataset.folds=5 dealt the clips anew, so clips tested now may have been trained on" in line
    assert line.endswith("in a csv with the columns filename, label and fold (docs/own_folder.md)")

    rows = [f"{row.id},{row.labels[0]},{k}\n" for k in data.splits for row in data.manifest(k).rows]
    (sounds / "folds.csv").write_text("filename,label,fold\n" + "".join(rows))
    evaluate(tmp_path, config)  # the very data that the run was started with
    assert "fingerprint" not in capsys.readouterr().err
    write_sound(sounds / "cat" / "other.wav", 21)
    added = "".join([*rows, "cat/new.wav,cat,5\ncat/other.wav,cat,1\n"])
    (sounds / "folds.csv").write_text("filename,label,fold\n" + added)
    evaluate(tmp_path, config)
    tested = np.load(tmp_path / "run" / "predictions" / "test.npz")["ids"]
    assert "cat/new.wav" in tested
    assert not trained & set(tested)
    said = capsys.readouterr().err
    assert "fingerprint differs): the scores are of the data given now" in said
    assert "trained on" not in said


@pytest.mark.parametrize("official", [False, True])
def test_only_folds_that_gtzan_dealt_are_warned_of(official, tmp_path, capsys):
    """Its folds depend on the files that are there, as those of an own folder do; official lists do not."""
    songs = tmp_path / "songs"
    for seed, name in enumerate(f"{genre}.0000{i}.wav" for genre in ("blues", "rock") for i in range(5)):
        write_sound(songs / "genres" / name, seed)
    config = get_config()
    config.dataset, config.num_classes = {"name": "gtzan", "folds": 5}, 10
    config.data_dir, config.prepared_dir = str(songs), str(tmp_path / "prepared")
    if official:
        config.splits = {"train": "train", "test": "test"}
        for split, numbers in {"train": (0, 1, 2), "valid": (3,), "test": (4,)}.items():
            listed = (f"blues/blues.0000{i}.wav\nrock/rock.0000{i}.wav\n" for i in numbers)
            (songs / f"{split}_filtered.txt").write_text("".join(listed))
    save_untrained(tmp_path / "run", config)
    write_sound(songs / "genres" / "blues.00009.wav", 20)
    if official:
        (songs / "train_filtered.txt").write_text("blues/blues.00000.wav\nrock/rock.00001.wav\n")
        (songs / "test_filtered.txt").write_text("blues/blues.00009.wav\nrock/rock.00004.wav\n")
    evaluate(tmp_path, config)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "fingerprint" in line]
    assert ("config.dataset.folds=5 dealt the clips anew" in line) != official
    assert ("test on the files that were there then" in line) != official


def test_a_run_can_be_scored_with_other_settings(evaluated):
    """Another split, fewer crops and another batch size; the predictions made before stay."""
    folder, config, scores = evaluated
    before = (folder / "run" / "predictions" / "test.npz").read_bytes()
    other = config.copy_and_resolve_references()
    other.eval = {"splits": ("train",), "batch_size": 16, "max_crops": 1}
    again = evaluate(folder, other)
    assert {name.partition("/")[0] for name in again} == {"train"}  # the same clips as test here
    assert again["train/clips"] == scores["test/clips"] == 19
    assert predictions.splits(folder / "run") == ["test", "train"]
    assert (folder / "run" / "predictions" / "test.npz").read_bytes() == before


def test_other_labels_than_the_checkpoints_are_refused(evaluated, tmp_path):
    folder, config, _ = evaluated
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    (tmp_path / "sounds" / "cat").rename(tmp_path / "sounds" / "lion")
    other = config.copy_and_resolve_references()
    other.data_dir = str(tmp_path / "sounds")
    with pytest.raises(ConfigError, match=r"config\.data_dir: the labels"):
        evaluate(folder, other)


UNTRAINED = SimpleNamespace(ema_variables={}, step=0)


class Watched:
    """A stand-in for eval_batches that yields its batches and records its options, each read and the end."""

    def __init__(self, events):
        self.events, self.options = events, {}

    def __call__(self, *args, **options):
        self.options = options
        return self.noting(Watched.eval_batches(*args, **options))

    def noting(self, batches):
        try:
            for batch in batches:
                self.events.append("read")
                yield batch
        finally:
            batches.close()
            self.events.append("closed")

    eval_batches = staticmethod(evaluation.eval_batches)


@pytest.fixture
def evaluator_of(evaluated, monkeypatch):
    """A function that makes a watched evaluator with `step` as network: 19 one-crop clips, batches of 8."""
    config = evaluated[1].copy_and_resolve_references()
    config.eval.batch_size, config.loader = 8, {"num_threads": 2, "prefetch": 3}
    prepared = prepare(**data_options(config), progress=False)
    events = []
    watched = Watched(events)
    fetch = jax.device_get

    def noted(tree):
        events.append("fetch")
        return fetch(tree)

    def made(step):
        monkeypatch.setattr(evaluation, "make_eval_step", lambda *_, **__: step)
        monkeypatch.setattr(evaluation, "eval_batches", watched)
        monkeypatch.setattr(jax, "device_get", noted)
        return SplitEvaluator(build(config), prepared, "test", distributed.data_mesh()), watched

    return made


def loudest(variables, audio):
    """Return scores that identify each clip."""
    level = jnp.abs(audio.astype(jnp.float32) / 2**15).mean(axis=1)
    return jnp.stack([level, 1 - level], axis=1)


def test_evaluation_reads_on_while_the_device_computes(evaluator_of):
    """A batch is fetched after the next one is dispatched; threads and prefetch are those of training."""
    evaluator, watched = evaluator_of(loudest)
    scores = dict(evaluator.run(UNTRAINED))
    assert watched.events[:7] == ["read", "read", "fetch", "read", "fetch", "closed", "fetch"]
    assert (watched.options["num_threads"], watched.options["prefetch"]) == (2, 3)
    assert scores["test/clips"] == 19


def test_probabilities_belong_to_the_stored_clip_ids(evaluator_of, evaluated, tmp_path):
    evaluator, _ = evaluator_of(loudest)
    dict(evaluator.run(UNTRAINED))
    stored = np.load(evaluator.save(tmp_path))
    for name, row in zip(stored["ids"], stored["probabilities"], strict=True):
        (path,) = (evaluated[0] / "sounds").rglob(f"*{name.rpartition('/')[2]}*")
        wave, _ = soundfile.read(path)
        np.testing.assert_allclose(row, [np.abs(wave).mean(), 1 - np.abs(wave).mean()], atol=1e-4)


def test_readers_end_when_evaluation_fails(evaluator_of):
    def broken(variables, audio):
        raise RuntimeError("the network cannot be computed")

    evaluator, watched = evaluator_of(broken)
    with pytest.raises(RuntimeError, match="cannot be computed"):
        dict(evaluator.run(UNTRAINED))
    assert watched.events == ["read", "closed"]


def test_probabilities_that_are_not_finite_are_one_line(evaluator_of):
    """Finite weights of 1e30 can cause this through the activations."""
    evaluator, _ = evaluator_of(lambda variables, audio: jnp.full((len(audio), 2), jnp.nan))
    with pytest.raises(DivergedError, match=r"test: 19 clips .*not finite with the weights of step 0: lower"):
        dict(evaluator.run(UNTRAINED))

"""Cross-validation runs every feature and fold once, skips finished cells, and pools folds correctly."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rann_jax import crossval
from rann_jax.command_line.config_file import load_config_file
from rann_jax.errors import ConfigError
from rann_jax.report import crossval_tables, tables
from rann_jax.saved import environment, predictions
from rann_jax.saved.cells import SPLIT, Cell, grid
from rann_jax.saved.record import data_fingerprints
from rann_jax.saved.workdir import save_config
from rann_jax.writers import read_metrics
from tests.conftest import launched
from tests.made_predictions import CLIPS, TARGETS, predicted
from tests.refusals import refused

CONFIG = "tests/tiny_folds.py"


def train_here(cell: Cell, overrides: Sequence[str]) -> None:
    """Write what a finished run leaves."""
    config = load_config_file(cell.config_arg, overrides)
    save_config(cell.workdir, config)
    (cell.workdir / ".lock").touch()
    seed = sum(map(ord, cell.name))
    run = predicted(seed, first_clip=CLIPS * cell.fold)
    run = dataclasses.replace(run, fingerprint=f"of fold {cell.fold}", step=config.total_steps)
    run.save(cell.workdir, SPLIT)


@pytest.fixture
def trained(monkeypatch):
    """Replace training by writing what a finished run leaves; return the list of cells that were run."""
    ran = []

    def train(cell, overrides, quiet):
        ran.append(cell.name)
        train_here(cell, overrides)
        return 0

    monkeypatch.setattr(crossval, "train_cell", train)
    return ran


def command(workdir, *more, features="log_mel,mfcc", folds="1-2") -> list[str]:
    arguments = ["--config", CONFIG, "--features", features, "--folds", folds, "--workdir", str(workdir)]
    return [*arguments, "--bootstrap", "20", *more]


def cross_validate(workdir, *more, **only) -> int:
    return crossval.main(command(workdir, *more, **only))


def refusal(capsys, workdir, *more, **only) -> str:
    return refused(crossval.main, capsys, *command(workdir, *more, **only))


@pytest.mark.fast
def test_tables_use_the_pooled_folds(trained, tmp_path, capsys):
    assert cross_validate(tmp_path) == 0
    assert trained == ["log_mel/fold1", "log_mel/fold2", "mfcc/fold1", "mfcc/fold2"]
    assert "| log_mel+mfcc |  | " in capsys.readouterr().out
    assert (tmp_path / "report" / "fusion.png").exists()
    whole = predictions.load(tmp_path / "mfcc", predictions.POOLED)
    parts = [predictions.load(tmp_path / "mfcc" / f"fold{k}", "test") for k in (1, 2)]
    np.testing.assert_array_equal(whole.probabilities, np.concatenate([p.probabilities for p in parts]))
    assert len(set(whole.ids)) == 2 * CLIPS
    right = [p.probabilities.argmax(1) == TARGETS.argmax(1) for p in parts]
    line = (tmp_path / "report" / "features.md").read_text().splitlines()[-1]
    assert line.startswith(f"| mfcc | {np.mean(right):.3f} [")
    assert line.endswith(f"| {right[0].mean():.3f} | {right[1].mean():.3f} |")


@pytest.mark.fast
def test_finished_cells_are_skipped_and_the_rest_run(trained, tmp_path):
    assert cross_validate(tmp_path, features="mfcc", folds="2") == 0
    half = predictions.path_of(tmp_path / "mfcc" / "fold1", "test")
    dataclasses.replace(predicted(0), step=1).save(half.parent.parent, "test")  # scored halfway
    trained.clear()
    assert cross_validate(tmp_path) == 0
    assert trained == ["log_mel/fold1", "log_mel/fold2", "mfcc/fold1"]
    rows = tables.read_csv(tmp_path / "report" / "features.csv", text=["feature"])
    assert [row["feature"] for row in rows] == ["log_mel", "mfcc"]  # not in the order in which they finished
    trained.clear()
    assert cross_validate(tmp_path) == 0
    assert trained == []


@pytest.mark.fast
def test_tables_of_finished_cells(trained, tmp_path, capsys):
    """Fusion uses the folds that all features have, cells not run are named, and nothing is trained."""
    assert cross_validate(tmp_path, features="log_mel", folds="1-2") == 0
    assert cross_validate(tmp_path, features="mfcc", folds="2") == 0
    (tmp_path / "mfcc" / "fold2" / "metrics.jsonl").write_text('{"step": 4, "time/seconds": 90.0}\n')
    environment.save(tmp_path / "mfcc" / "fold2", "")
    trained.clear()
    assert cross_validate(tmp_path, "--finished", features="log_mel,mfcc,cqt", folds="1-3") == 0
    assert trained == []
    lines = (tmp_path / "report" / "cells.md").read_text().splitlines()
    states = [line.split(" | ")[2] for line in lines[2:]]
    assert [state == "not run" for state in states] == [False, False, True, True, False, True, *[True] * 3]
    part = predictions.load(tmp_path / "mfcc" / "fold2", "test")
    right = (part.probabilities.argmax(1) == TARGETS.argmax(1)).mean()
    assert lines[6] == f"| mfcc | 2 | {right:.3f} | {CLIPS} | 1.5 | {environment.describe('')['devices']} |"
    assert len(predictions.load(tmp_path / "log_mel", predictions.POOLED).ids) == CLIPS
    assert "| log_mel+mfcc |  | " in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize(
    ("features", "says"),
    [("cqt", "no finished cell"), ("log_mel,mfcc", "no fold is finished for all of log_mel, mfcc")],
)
def test_tables_without_finished_cells_are_refused(trained, tmp_path, capsys, features, says):
    assert cross_validate(tmp_path, features="log_mel", folds="1") == 0
    assert cross_validate(tmp_path, features="mfcc", folds="2") == 0
    assert says in refusal(capsys, tmp_path, "--finished", features=features)


@pytest.mark.fast
def test_unknown_features_are_refused_with_finished_too(trained, tmp_path, capsys):
    assert cross_validate(tmp_path, features="log_mel", folds="1") == 0
    assert "mell" in refusal(capsys, tmp_path, "--finished", features="log_mel,mell", folds="1")


@pytest.mark.fast
def test_started_cells_are_not_finished(trained, tmp_path):
    """Predictions of another step, or without a config, do not make a finished cell."""
    assert cross_validate(tmp_path, features="log_mel", folds="1-3") == 0
    dataclasses.replace(predicted(0), step=1).save(tmp_path / "log_mel" / "fold1", "test")
    (tmp_path / "log_mel" / "fold2" / "config.json").unlink()
    assert cross_validate(tmp_path, "--finished", features="log_mel", folds="1-3") == 0
    lines = (tmp_path / "report" / "cells.md").read_text().splitlines()
    assert [line.split(" | ")[2] for line in lines[2:4]] == ["not finished", "not run"]
    assert len(predictions.load(tmp_path / "log_mel", predictions.POOLED).ids) == CLIPS


@pytest.mark.fast
@pytest.mark.parametrize("seconds", ["[]", "NaN", f"1{'0' * 400}"], ids=["list", "nan", "large"])
def test_broken_metrics_are_named(trained, tmp_path, capsys, seconds):
    assert cross_validate(tmp_path, features="log_mel", folds="1") == 0
    metrics = tmp_path / "log_mel" / "fold1" / "metrics.jsonl"
    metrics.write_text(f'{{"step": 4, "time/seconds": {seconds}}}\n')
    line = refusal(capsys, tmp_path, "--finished", features="log_mel", folds="1")
    assert "metrics.jsonl is not the metrics of a run: line 1: time/seconds is not a fin" in line


@pytest.mark.fast
@pytest.mark.parametrize(("code", "goes_on"), [(2, False), (1, False), (75, True), (130, True), (-9, True)])
def test_a_failure_stops_and_keeps_its_exit_code(tmp_path, monkeypatch, capsys, code, goes_on):
    """A user error or divergence would recur; a cell that was stopped or killed can resume."""
    monkeypatch.setattr(crossval, "train_cell", lambda *_: code)
    assert cross_validate(tmp_path) == (code if code > 0 else 1)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"1/4 log_mel/fold1: stopped with exit code {code}")
    assert last.endswith("; run the same command again to resume") == goes_on


@pytest.mark.fast
def test_an_interruption_between_cells_says_how_to_resume(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(crossval, "train_cell", interrupted)
    assert cross_validate(tmp_path) == 130
    assert capsys.readouterr().err == "interrupted: run the same command again to resume\n"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"features": "log_mel,mell"}, "mell"),
        ({"features": "log_mel", "more": ["--finished"]}, "no finished cell"),
        ({"features": "log_mel,log_mel"}, "each once"),
        ({"features": ""}, "at least one"),
        ({"folds": "1-x"}, "--folds 1-x"),
        ({"folds": "2-1"}, "--folds 2-1"),
        ({"folds": "1,1"}, "each once"),
        ({"folds": "5-1,2"}, "--folds 5-1,2: write a range from its lower to its higher end"),
        ({"folds": "1-9999999999"}, "at most 1000"),
        ({"folds": "1-600,1001-1401"}, "at most 1000"),
        ({"more": ["--bootstrap", "-2"]}, "--bootstrap -2: give a number of draws"),
        ({"more": ["--config.seeed=1"]}, "--config.seeed"),
        ({"more": ["--config.seed=one"]}, "config.seed"),
        ({"more": ["--quit"]}, "'--quit' is not understood"),
        ({"more": ["--config", "configs/audioset.py"]}, "no preset 'fold'"),
        ({"more": ["--config", "configs/absent.py"]}, "configs/absent.py"),
        ({"more": ["--workdir", "gs://bucket/W"]}, "mount the bucket"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_refused_before_training(trained, tmp_path, capsys, arguments, says):
    assert says in refusal(capsys, tmp_path / "W", *arguments.pop("more", []), **arguments)
    assert trained == []
    assert not (tmp_path / "W").exists()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("eval.splits=('train',)", "lacks test, whose predictions are pooled: add it"),
        ("eval.splits=('test', 'tset')", "must name one or more of config.splits: "),
        ("eval.splits=()", "must name one or more of config.splits: "),
        ("best_metric=test/maP", "is not a score of config.eval.splits: use one of test/mAP, "),
        ("best_metric=valid/mAP", "is not a score of config.eval.splits: use one of test/mAP, "),
    ],
)
def test_cells_that_would_not_be_scored_are_refused_before_training(
    trained, tmp_path, capsys, override, says
):
    line = refusal(capsys, tmp_path, f"--config.{override}")
    assert line.startswith(f"error: config.{override.partition('=')[0]}=")
    assert says in line
    assert trained == []


@pytest.mark.fast
def test_finished_cells_need_no_valid_best_metric(trained, tmp_path):
    """Runs of earlier versions, which did not check it, can still be tabulated."""
    wrong = "--config.best_metric=valid/mAP"
    for cell in grid(CONFIG, ["log_mel", "mfcc"], [1, 2], tmp_path):
        train_here(cell, [wrong])
    assert cross_validate(tmp_path, "--finished", wrong) == 0
    assert cross_validate(tmp_path, wrong) == 0
    assert trained == []


@pytest.mark.fast
def test_cells_of_another_config_are_refused(trained, tmp_path, capsys):
    assert cross_validate(tmp_path) == 0
    assert "seed (0 there)" in refusal(capsys, tmp_path, "--config.seed=1")


def keep_checkpoint(cell, fingerprint: str) -> None:
    """Leave what says in a cell's checkpoint which data it was started with."""
    path = cell / "checkpoints" / "4" / "record" / "metadata"
    path.parent.mkdir(parents=True)
    bundle = {"config": {}, "labels": [], "fingerprints": {"test": fingerprint}}
    path.write_text(json.dumps({"batches": 4, "seconds": 1.0, "bundle": bundle}))


@pytest.mark.fast
@pytest.mark.parametrize("finished", [[], ["--finished"]])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fingerprint": "of other data"}, "is of other data than the run (its fingerprint differs)"),
        ({"max_crops": 3}, "was scored with eval.max_crops=3, not 16"),
    ],
    ids=["data", "crops"],
)
def test_cells_scored_in_another_way_are_refused(trained, tmp_path, capsys, changes, says, finished):
    """As by --mode=eval with another config.data_dir or config.eval, which overwrites the predictions."""
    only = {"features": "log_mel", "folds": "1-2"}
    assert cross_validate(tmp_path, **only) == 0
    cell = tmp_path / "log_mel" / "fold2"
    keep_checkpoint(cell, "of fold 2")
    before = predictions.load(cell, "test")
    dataclasses.replace(before, max_crops=16).save(cell, "test")
    assert cross_validate(tmp_path, *finished, **only) == 0
    trained.clear()
    capsys.readouterr()
    path = dataclasses.replace(before, **changes).save(cell, "test")
    again = f"score the cell again: python -m rann_jax.main --mode=eval --workdir {cell}"
    assert refusal(capsys, tmp_path, *finished, **only) == f"error: {path} {says}: {again}"
    assert trained == []


@pytest.mark.fast
def test_a_damaged_checkpoint_of_a_cell_is_named(trained, tmp_path, capsys):
    assert cross_validate(tmp_path, features="log_mel", folds="1") == 0
    keep_checkpoint(tmp_path / "log_mel" / "fold1", "of fold 1")
    path = tmp_path / "log_mel" / "fold1" / "checkpoints" / "4" / "record" / "metadata"
    path.write_text("{}")
    assert f"error: {path} cannot be read" in refusal(capsys, tmp_path, features="log_mel", folds="1")


@pytest.mark.fast
def test_folds_that_share_clips_are_refused():
    with pytest.raises(ConfigError, match="a clip is in two folds"):
        crossval_tables.pool({1: predicted(0), 2: predicted(1)})


@pytest.mark.fast
def test_presets_are_joined():
    (cell,) = grid("configs/esc50.py:subset=esc10,size=small", ["mfcc"], [3], Path("W"))
    assert cell.config_arg == "configs/esc50.py:subset=esc10,size=small,feature=mfcc,fold=3"
    config = load_config_file(cell.config_arg, ["--config.seed=7"])
    assert (config.feature.name, config.splits.test) == ("mfcc", "fold3")
    assert (config.num_classes, config.seed) == (10, 7)


@pytest.fixture
def sounds(tmp_path):
    """A folder of two classes of which only the names matter."""
    folder = tmp_path / "sounds"
    for name in [f"{kind}/{number}.wav" for kind in ("cat", "dog") for number in range(10)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.fast
def test_what_the_config_says_of_the_data_is_shown_once(sounds, tmp_path, capsys, monkeypatch):
    """Its notes are the same for each feature, and the program of each cell would repeat them."""
    commands = []
    monkeypatch.setattr(crossval.child, "run", lambda command: commands.append(command) or 75)
    config = ["--config", f"configs/folder.py:data={sounds}"]
    assert cross_validate(tmp_path / "W", *config, features="log_mel,mfcc", folds="1-2") == 75
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(set(said)) == 4
    assert said[0] == f"note: {sounds}: 2 classes: 'cat', 'dog'"
    assert ["tested on fold1" in said[1], "tested on fold2" in said[3]] == [True, True]
    (command,) = commands
    assert "--nonotes" in command


@pytest.mark.fast
@pytest.mark.parametrize(("more", "notes"), [([], 3), (["--nonotes"], 0)])
def test_a_cell_does_not_repeat_the_notes(sounds, tmp_path, capsys, main_here, more, notes):
    config = f"--config=configs/folder.py:data={sounds},fold=1"
    assert main_here([config, f"--workdir={tmp_path / 'W'}", "--config.batch_size=0", *more]) == 2
    *said, error = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"note: {sounds}: ") for line in said] == [True] * notes
    assert error.startswith("error: config.batch_size")


@pytest.mark.fast
def test_notes_are_shown_if_the_config_cannot_be_loaded(sounds, tmp_path, capsys):
    (sounds / "empty").mkdir()
    config = ["--config", f"configs/folder.py:data={sounds}"]
    assert cross_validate(tmp_path / "W", *config, features="log_mel", folds="6-7") == 2
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: config.data_dir: no sound in 'empty'")
    assert error.startswith("error: preset fold=6: ")


def test_a_real_cell_is_trained_and_a_partial_one_resumes(tmp_path, monkeypatch):
    """The real program runs one feature and fold; then its predictions are lost, as after a late kill."""
    monkeypatch.setenv("XLA_FLAGS", launched()["XLA_FLAGS"])
    rng = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("high", 3000)):
        folder = tmp_path / "sounds" / label
        folder.mkdir(parents=True)
        for i in range(10):
            tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(16000) / 16000)
            soundfile.write(folder / f"{label}{i}.wav", tone + 0.05 * rng.normal(size=16000), 16000)
    locations = [f"--config.data_dir={tmp_path / 'sounds'}", f"--config.prepared_dir={tmp_path / 'prepared'}"]
    workdir = tmp_path / "W"
    arguments = {"features": "log_mel", "folds": "1"}
    assert cross_validate(workdir, "--quiet", *locations, **arguments) == 0
    cell = workdir / "log_mel" / "fold1"
    first = predictions.load(cell, "test")
    assert (first.step, len(first.ids), len(first.fingerprint), first.max_crops) == (4, 4, 64, 16)
    assert data_fingerprints(cell)["test"] == first.fingerprint
    rows = (cell / "metrics.jsonl").read_text()
    predictions.path_of(cell, "test").unlink()
    shutil.rmtree(cell / "checkpoints" / "4")  # the last save was lost too: it resumes from step 3
    assert cross_validate(workdir, "--quiet", *locations, **arguments) == 0
    again = predictions.load(cell, "test")
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    assert json.loads(rows.splitlines()[-1])["step"] == 4
    seconds = [row["time/seconds"] for row in read_metrics(cell / "metrics.jsonl") if "test/mAP" in row]
    assert len(seconds) > 0
    assert seconds == sorted(seconds)  # includes the time before the interruption
    assert seconds[0] > 0

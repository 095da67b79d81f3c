"""The report shows what the files hold, executes none of it, and gives one line if a file is broken."""

import dataclasses
import html.parser
import json
import os
import re
import shutil

import matplotlib.image
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn import metrics as sk

from configs.base import base
from input_pipeline.preparation import find_prepared, prepare
from rann_jax.report import __main__ as report
from rann_jax.report import collect, crossval_tables, markup, mistakes, page, plots
from rann_jax.saved import environment, predictions
from rann_jax.saved.cells import grid
from rann_jax.saved.workdir import save_config
from tests.made_predictions import CLIPS, LABELS, TARGETS, predicted
from tests.refusals import refused

HOSTILE = '<img src="http://evil.example/x" onerror=alert(1)>$\\frac{\u202e\x00'


class Elements(html.parser.HTMLParser):
    """Tags, attributes and text of a page, found by the standard library's parser."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def make_run(workdir, changes: dict | None = None, **config) -> None:
    """Write the files of a finished run, without checkpoints."""
    save_config(
        workdir, ConfigDict({**base().to_dict(), "num_classes": 3, "prepared_dir": "absent", **config})
    )
    rows = [{"step": s, "train/loss": 2 / s, "test/accuracy": s / 9, "test/mAP": None} for s in range(1, 9)]
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "tr'
    )
    environment.save(workdir, f"python -m rann_jax.main {HOSTILE}")
    dataclasses.replace(predicted(0, 1.0), **changes or {}).save(workdir, "test")


def made(workdir, capsys) -> Elements:
    assert report.main([str(workdir), "--bootstrap", "20"]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(workdir / "report" / f"index.{kind}") for kind in ("html", "png")]
    assert matplotlib.image.imread(written[1]).ndim == 3
    elements = Elements((workdir / "report" / "index.html").read_text(encoding="utf-8"))
    # The page fetches and runs nothing.
    assert {tag for tag, _ in elements.tags}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    for tag, attributes in elements.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
        assert set(attributes) <= {"src", "alt", "class", "lang", "charset", "name", "content", "http-equiv"}
    return elements


@pytest.mark.fast
def test_the_page_of_a_run(tmp_path, capsys):
    make_run(tmp_path)
    text = made(tmp_path, capsys).text
    scored = predictions.load(tmp_path, "test")
    hit = (scored.probabilities.argmax(1) == TARGETS.argmax(1)).mean()
    assert f"{hit:.3f} [" in text
    assert f"{sk.average_precision_score(TARGETS, scored.probabilities):.3f} [" in text
    for c, label in enumerate(LABELS):
        precision = sk.average_precision_score(TARGETS[:, c], scored.probabilities[:, c])
        f1 = sk.f1_score(TARGETS[:, c], scored.probabilities.argmax(1) == c)
        assert f"{label}{TARGETS[:, c].sum()}{precision:.3f}{f1:.3f}" in text  # cells of one row
    for part in ("f00d", "classification", "No spectrograms", environment.describe("")["jax"], "cpu"):
        assert part in text


@pytest.mark.fast
def test_names_are_text_and_not_html(tmp_path, capsys):
    labels = np.array([HOSTILE, "a</td><script>b", "rain & $x$"])
    ids = np.array([f"{HOSTILE}{i}" for i in range(CLIPS)])
    make_run(tmp_path, {"labels": labels, "ids": ids, "fingerprint": "<script>"})
    text = made(tmp_path, capsys).text
    seen = HOSTILE.replace("\u202e", "\ufffd").replace("\x00", "\ufffd")
    for part in (*labels[1:], seen, f"main {seen}", "<script>"):
        assert part in text


@pytest.mark.fast
def test_a_run_of_several_labels_and_of_one_that_goes_on(tmp_path, capsys):
    targets = TARGETS.copy()
    targets[:, 2], targets[::2, 1] = 0, 1
    make_run(tmp_path / "tags", {"task": "tagging", "targets": targets})
    text = made(tmp_path / "tags", capsys).text
    assert "so there is no confusion matrix" in text
    assert "left out of every mean: siren" in text
    make_run(tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "predictions")
    (tmp_path / "half" / environment.FILE).unlink()
    text = made(tmp_path / "half", capsys).text
    assert "No predictions yet" in text
    assert "half: not recorded" in text


@pytest.mark.fast
def test_the_page_of_a_cross_validation(tmp_path, capsys):
    cells = grid("configs/esc50.py", ["log_mel", "mfcc"], [1, 2], tmp_path)
    for number, cell in enumerate(cells):
        make_run(cell.workdir)
        run = predicted(number, 1.0 + (cell.feature == "mfcc"), first_clip=CLIPS * cell.fold)
        dataclasses.replace(run, fingerprint=f"of fold {cell.fold}").save(cell.workdir, "test")
        all_wrong = 1 - np.roll(TARGETS, 1, axis=1)
        ids = np.array([f"of the validation split {i}" for i in range(CLIPS)])
        dataclasses.replace(run, ids=ids, targets=all_wrong).save(cell.workdir, "valid")
    assert "finished cross-validation" in refused(report.main, capsys, tmp_path)
    done = {cell: predictions.load(cell.workdir, "test") for cell in cells}
    crossval_tables.write(tmp_path, cells, done, draws=20)
    text = made(tmp_path, capsys).text
    fusion = (tmp_path / "report" / "fusion.csv").read_text().splitlines()
    accuracy = float(next(line for line in fusion if line.startswith("log_mel+mfcc,ds,")).split(",")[2])
    assert f"log_mel+mfccds{accuracy:.3f} [" in text
    assert "mfcc, the feature of the greatest accuracy" in text
    assert "log_mel/fold2: python -m rann_jax.main" in text
    wrong = [
        m
        for k in (1, 2)
        for m in mistakes.worst(collect.read_run(tmp_path / "mfcc" / f"fold{k}", ""), "test", 99)
    ]
    assert max(wrong, key=lambda m: m.error).id in text
    assert "of the validation split" not in text
    for name, content in (
        ("features", "feature\n../mfcc\n"),
        ("features", "feature,fold1,accuracy\n..,0.5,0.5\n"),
        ("features", 'feature,fold1,accuracy\n"",0.5,0.5\n'),
        ("features", "feature,fold1\nmfcc,0.5\n"),
        ("fusion", "models,rule\nx,y\n"),
        ("fusion", "models,rule,weights\nx,y,z\n"),
    ):
        path = tmp_path / "report" / f"{name}.csv"
        kept = path.read_text()
        path.write_text(content)
        assert str(path) in refused(report.main, capsys, tmp_path)
        path.write_text(kept)


@pytest.mark.fast
def test_mistakes_are_the_worst_and_in_order(tmp_path):
    make_run(tmp_path)
    found = mistakes.worst(collect.read_run(tmp_path, "run"), "test", 5)
    probs = predictions.load(tmp_path, "test").probabilities.astype(np.float64)
    expected = {
        i: max(p) - p[i % 3] for i, p in enumerate(probs) if p.argmax() != i % 3
    }  # brute force: clip i has class i % 3
    order = sorted(expected, key=lambda i: -expected[i])[:5]
    assert [m.clip for m in found] == order
    assert [m.error for m in found] == pytest.approx([expected[i] for i in order])
    assert [m.labels for m in found] == [(LABELS[i % 3],) for i in order]
    assert found[0].said.startswith(LABELS[probs[order[0]].argmax()])


@pytest.mark.fast
def test_mistakes_of_tagging_are_beyond_one_half(tmp_path):
    make_run(tmp_path, {"task": "tagging"})
    found = mistakes.worst(collect.read_run(tmp_path, "run"), "test", CLIPS)
    distance = np.abs(predictions.load(tmp_path, "test").probabilities - TARGETS).max(1)
    assert len(found) == (distance > 0.5).sum()
    np.testing.assert_allclose([m.error for m in found], np.sort(distance[distance > 0.5])[::-1])


@pytest.mark.fast
def test_many_classes_are_cut(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "MAX_CLASSES", 5)
    classes = 12
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(classes, 0.1), classes).astype(np.float32)
    names = np.array([f"c{i}" for i in range(classes)])
    targets = np.eye(classes, dtype=np.uint8)
    make_run(tmp_path, {"labels": names, "ids": names, "targets": targets, "probabilities": probabilities})
    assert "Only 5 of 12 classes are drawn" in made(tmp_path, capsys).text


@pytest.mark.fast
def test_many_curves_are_cut(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(page, "MAX_CURVES", 3)
    make_run(tmp_path)
    row = json.dumps({"step": 1} | {f"train/{i}": 1 for i in range(1500)})
    (tmp_path / "metrics.jsonl").write_text(f"{row}\n")
    assert "Only the first 3 of 1500 are drawn." in made(tmp_path, capsys).text


@pytest.mark.fast
def test_confusions_are_counted(monkeypatch):
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 6, (2, 200))
    expected = sk.confusion_matrix(truth, said)
    chosen, counts = page.confusions(np.eye(6, dtype=np.uint8)[truth], said)
    np.testing.assert_array_equal(chosen, np.arange(6))
    np.testing.assert_array_equal(counts, expected)
    monkeypatch.setattr(page, "MAX_CLASSES", 2)
    chosen, counts = page.confusions(np.eye(6, dtype=np.uint8)[truth], said)
    wrong = expected.sum(0) + expected.sum(1) - 2 * expected.diagonal()
    assert set(wrong[chosen]) == set(np.sort(wrong)[-2:])
    np.testing.assert_array_equal(counts, expected[np.ix_(chosen, chosen)])


@pytest.mark.fast
def test_confusions_of_a_hundred_thousand_classes():
    """A full confusion matrix would take 80 GB."""
    targets = np.zeros((2, 100_000), np.uint8)
    targets[:, 7] = 1
    chosen, counts = page.confusions(targets, np.array([7, 99_999]))
    assert {7, 99_999} < set(chosen)
    assert counts.sum() == 2


@pytest.mark.fast
def test_more_classes_than_can_be_scored(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predictions, "MAX_CLASSES", 2)
    make_run(tmp_path)
    assert "test.npz: 3 classes are more than 2" in refused(report.main, capsys, tmp_path)


@pytest.mark.fast
def test_all_subsets_of_twelve_models_are_a_picture():
    """The sides stay under 2^16 pixels, Matplotlib's limit, and only the best rows are drawn."""
    values = np.random.default_rng(0).uniform(0, 0.9, (4100, 5))
    values[4000, 3], values[1:9] = 1, np.nan
    figure = plots.heat_map(values, [f"subset {i}" for i in range(4100)], list("abcde"), "accuracy")
    assert max(figure.get_size_inches()) * plots.DPI < 1 << 16
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == f"the best {plots.MAX_ROWS} of 4100: accuracy"
    shown = {int(label.get_text().split()[1]) for label in axes.get_yticklabels()}
    expected = np.argsort(-np.nan_to_num(values).max(axis=1))[: plots.MAX_ROWS]
    assert shown == set(expected.tolist())
    assert 4000 in shown


def test_mistakes_are_drawn_from_the_prepared_copy(tmp_path, capsys):
    """The sound is that of the clip; a missing or different copy is reported."""
    options = {"train_clips": 10, "test_clips": 10, "seed": 0}
    place = {"sample_rate": 8000, "prepared_dir": str(tmp_path / "prepared")}
    copy = prepare("quickstart", progress=False, **options, **place)
    ids = np.array([row.id for row in copy.manifest("test").rows])
    assert find_prepared("quickstart", "test", copy.fingerprint("test"), **place) == copy
    assert find_prepared("quickstart", "test", copy.fingerprint("train"), **place) is None
    rng = np.random.default_rng(1)
    changes = {
        "ids": ids,
        "labels": np.array(copy.labels),
        "targets": copy.targets("test").astype(np.uint8),
        "probabilities": rng.dirichlet(np.ones(10), len(ids)).astype(np.float32),
        "fingerprint": copy.fingerprint("test"),
    }
    run = tmp_path / "run"
    make_run(run, changes, dataset={"name": "quickstart", **options}, **place)
    assert "No spectrograms" not in made(run, capsys).text
    found = mistakes.worst(collect.read_run(run, "run"), "test", 3)
    for mistake, wave in zip(found, mistakes.sounds(found), strict=True):
        clip = next(c for c in copy.source("test") if c["id"].decode() == mistake.id)
        np.testing.assert_array_equal(wave * 32768, np.asarray(clip["audio"]))
    (copy.folder / "features.json").unlink()
    assert "No spectrograms" in made(run, capsys).text


@pytest.mark.fast
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "[1]"),
        ("config.json", "{"),
        ("metrics.jsonl", "nonsense\n"),
        ("metrics.jsonl", "[1]\n"),
        ("metrics.jsonl", '{"train/loss": 1}\n'),
        ("metrics.jsonl", '{"step": 1, "train/loss": "<b>"}\n'),
        ("environment.json", "[]"),
        ("environment.json", "[" * 100_000),
        ("predictions/test.npz", "PK"),
    ],
    ids=lambda value: re.sub(r"\W", "", value)[:20] or "nested",
)
def test_a_broken_file_is_one_line(tmp_path, capsys, file, content):
    make_run(tmp_path)
    (tmp_path / file).write_text(content)
    assert str(tmp_path / file) in refused(report.main, capsys, tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.fast
def test_predictions_of_the_best_checkpoint_are_not_a_split(tmp_path):
    make_run(tmp_path)
    before = list(collect.read(tmp_path).predictions)
    shutil.copy(tmp_path / "predictions" / "test.npz", tmp_path / "predictions" / "test.best.npz")
    assert list(collect.read(tmp_path).predictions) == before


@pytest.mark.fast
def test_wrong_arguments(tmp_path, capsys):
    assert "neither a run" in refused(report.main, capsys, tmp_path / "absent")
    assert "--bootstrap -1: give a number of draws" in refused(
        report.main, capsys, tmp_path, "--bootstrap=-1"
    )


@pytest.mark.fast
def test_a_folder_that_cannot_be_written_to_is_refused_with_the_option(tmp_path, capsys, monkeypatch):
    make_run(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    says = f"error: --out={tmp_path}/report: {tmp_path} cannot be written to: name another folder"
    assert refused(report.main, capsys, tmp_path).startswith(says)
    assert not (tmp_path / "report").exists()


@pytest.mark.fast
def test_a_launch_is_recorded(tmp_path):
    environment.save(tmp_path, environment.command_text("rann_jax.main", ["--workdir", "a b"]))
    loaded = environment.load(tmp_path)
    assert loaded["command"] == "python -m rann_jax.main --workdir 'a b'"
    assert loaded["numpy"] == np.__version__
    assert loaded["devices"].startswith("8 x ")  # set in tests/conftest.py


@pytest.mark.fast
def test_missing_glyphs_and_constant_or_nan_values_are_drawn():
    names = ["雨", "\U0001f415", "$"]
    assert plots.png(plots.bars({"F1": np.full(3, np.nan)}, names, "$"))
    assert plots.png(plots.heat_map(np.full((3, 1), np.nan), names, ["F1"], "$"))
    assert plots.png(plots.curves({"loss": [plots.Line("$\\frac", [1], [1e29])]}))


@pytest.mark.fast
def test_blanks_of_all_scripts_are_text():
    for text in ("犬\u3000猫", "chien\u00a0: 3", "12\u202f000"):
        assert markup.escape(text) == text
    assert markup.escape("a\tb\u200b\u2028c\x85") == "a\ufffdb\ufffd\ufffdc\ufffd"

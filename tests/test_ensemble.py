"""Predictions of several runs become one table; runs that do not match are refused in one line."""

import csv
import dataclasses
import io
import itertools
import zipfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.optimize import minimize
from sklearn import metrics as sk

from configs.base import base
from rann_jax import crossval, ensemble, fusion_weights, predictions
from rann_jax.errors import ConfigError
from rann_jax.predictions import Predictions
from rann_jax.workdir import save_config

pytestmark = pytest.mark.fast

CLIPS, LABELS = 40, np.array(["dog", "rain", "siren"])
TARGETS = np.eye(3, dtype=np.uint8)[np.arange(CLIPS) % 3]


def predicted(seed: int, sharpness: float = 2.0, first_clip: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, TARGETS.shape) + sharpness * TARGETS
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(
        ids=np.array([f"clip{first_clip + i}" for i in range(CLIPS)]),
        targets=TARGETS,
        probabilities=probabilities.astype(np.float32),
        labels=LABELS,
        fingerprint="f00d",
        task="classification",
        step=12,
    )


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / name for name in ("mel", "mfcc", "cqt")]
    for seed, folder in enumerate(folders):
        predicted(seed, 2.0 - 0.5 * seed).save(folder, "test")
        predicted(seed + 10, 2.0 - 0.5 * seed, first_clip=CLIPS).save(folder, "valid")
    return folders


def refused(capsys, *arguments: object) -> str:
    """Run the program and return the single error line with which it ends."""
    assert ensemble.main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_model_with_a_plus_in_its_name():
    """A model named `a+b`, the fusion of `a` and `b`, and fusions with that model get separate lines."""
    names = ["log_mel", "wavegram", "log_mel+wavegram"]
    models = {name: predicted(seed) for seed, name in enumerate(names)}
    rows = ensemble.fusion_rows(models, ["wa"], ensemble.choose_subsets("all", names), draws=0)
    lines = ensemble.by_rule(rows, "accuracy")
    assert [line["models"] for line in lines] == [
        *names,
        "log_mel+wavegram",
        "log_mel+(log_mel+wavegram)",
        "wavegram+(log_mel+wavegram)",
        "log_mel+wavegram+(log_mel+wavegram)",
    ]
    assert [np.isnan(line["wa"]) for line in lines] == [True] * 3 + [False] * 4
    assert [np.isnan(line["single"]) for line in lines] == [False] * 3 + [True] * 4


def test_the_table(runs, tmp_path, capsys):
    assert ensemble.main([*map(str, runs), "--out", str(tmp_path / "out"), "--bootstrap", "50"]) == 0
    printed = capsys.readouterr().out
    assert "| mel+mfcc+cqt | ids |" in printed
    written = ("ensemble.csv", "ensemble.md", "ensemble_accuracy.md", "ensemble.png")
    assert printed.splitlines()[-4:] == [str(tmp_path / "out" / name) for name in written]
    with (tmp_path / "out" / "ensemble.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 4 * 5
    assert (tmp_path / "out" / "ensemble.png").read_bytes().startswith(b"\x89PNG")
    by_name = {(row["models"], row["rule"]): row for row in rows}
    lines = (tmp_path / "out" / "ensemble_accuracy.md").read_text().splitlines()
    assert lines[0] == "| models | single | wa | ds | ids | murphy | deng |"
    rules = ("wa", "ds", "ids", "murphy", "deng")
    accuracies = [f"{float(by_name['mel+mfcc', rule]['accuracy']):.3f}" for rule in rules]
    assert f"| mel+mfcc |  | {' | '.join(accuracies)} |" in lines[2:]
    loaded = [predictions.load(run, "test").probabilities.astype(np.float64) for run in runs]
    for rule, fused in (("wa", np.mean(loaded[:2], 0)), ("ds", loaded[0] * loaded[1])):
        fused /= fused.sum(1, keepdims=True)
        row = by_name["mel+mfcc", rule]
        assert float(row["accuracy"]) == pytest.approx((fused.argmax(1) == TARGETS.argmax(1)).mean())
        assert float(row["mAP"]) == pytest.approx(sk.average_precision_score(TARGETS, fused), abs=1e-6)
        f1 = sk.f1_score(TARGETS.argmax(1), fused.argmax(1), average="macro")
        assert float(row["F1"]) == pytest.approx(f1, abs=1e-6)
        assert float(row["mAP_low"]) <= float(row["mAP"]) <= float(row["mAP_high"])
    k = np.mean(1 - (loaded[0] * loaded[1]).sum(1))
    assert float(by_name["mel+mfcc", "murphy"]["conflict"]) == pytest.approx(k, abs=1e-5)
    singles = [float(by_name[run.name, "single"]["accuracy"]) for run in runs]
    assert singles == [(probs.argmax(1) == TARGETS.argmax(1)).mean() for probs in loaded]  # every digit equal
    assert float(by_name[runs[np.argmax(singles)].name, "single"]["p"]) == 1


def test_tagging_is_scored_too(tmp_path, capsys):
    for seed in range(2):
        one = dataclasses.replace(predicted(seed), task="tagging", targets=TARGETS | TARGETS[::-1])
        one.save(tmp_path / str(seed), "test")
    models = ensemble.load_models([tmp_path / "0", tmp_path / "1"], "test")
    rows = ensemble.fusion_rows(models, ["ds"], [("0", "1")], draws=0)
    p, q = (m.probabilities.astype(np.float64) for m in models.values())
    fused = p * q / (p * q + (1 - p) * (1 - q))
    expected = sk.average_precision_score(TARGETS | TARGETS[::-1], fused)
    assert rows[-1]["mAP"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(rows[-1]["mAP_low"])
    # Models are compared by mAP: the best single one, the tables by rule, and the folds of crossval.
    best = max(rows[:2], key=lambda row: row["mAP"])
    assert best["p"] == 1
    assert ensemble.headline(models[best["models"]]) == best["mAP"]
    assert (
        ensemble.main([str(tmp_path / "0"), str(tmp_path / "1"), "--rules", "ds", "--out", str(tmp_path)])
        == 0
    )
    capsys.readouterr()
    assert (tmp_path / "ensemble_mAP.md").read_text().splitlines()[-1] == f"| 0+1 |  | {expected:.3f} |"
    (line,) = crossval.feature_rows({"mel": {1: models["0"]}}, {"mel": models["0"]}, draws=0)
    assert line["fold1"] == line["mAP"] == rows[0]["mAP"]


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_fitted_weights_maximise_the_likelihood(task):
    probs = np.stack([predicted(seed, s).probabilities for seed, s in ((0, 2.0), (1, 1.5), (2, -0.5))])
    if task == "classification":
        likelihood = (probs * TARGETS).sum(-1)
    else:
        likelihood = np.where(TARGETS, probs, 1 - probs).reshape(3, -1)
    weights = fusion_weights.fit(probs, TARGETS, task)
    expected = minimize(
        lambda w: -np.log(w @ likelihood).mean(),
        np.full(3, 1 / 3),
        bounds=[(1e-9, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(weights, expected.x, atol=5e-3)
    assert -np.log(weights @ likelihood).mean() == pytest.approx(expected.fun, abs=2e-6)


def test_weights_are_never_fitted_on_scored_clips(runs, capsys):
    fitted = [*runs, "--weights", "fitted"]
    assert "--fit-split" in refused(capsys, *fitted)
    assert "--fit-split" in refused(capsys, *fitted, "--fit-split", "test")
    for run in runs:
        predicted(0, first_clip=CLIPS - 1).save(run, "overlapping")
    assert "shares 1 clips" in refused(capsys, *fitted, "--fit-split", "overlapping")
    out = runs[0].parent / "out"
    arguments = [*fitted, "--fit-split", "valid", "--rules", "wa", "--bootstrap", "0", "--out", out]
    assert ensemble.main([str(a) for a in arguments]) == 0
    fit = np.stack([predictions.load(run, "valid").probabilities for run in runs[1:]])
    expected = "+".join(f"{w:.3f}" for w in fusion_weights.fit(fit, TARGETS, "classification"))
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("| mfcc+cqt |")]
    assert line.endswith(f"| {expected} |")  # fitted for these two, not taken from the fit of three


def config_of(feature: str, splits: dict[str, str]) -> ConfigDict:
    config = base()
    config.feature.name = feature
    config.splits = splits
    return config


@pytest.mark.parametrize(
    ("split", "of"),
    [
        ("train", "fold1+fold2"),
        ("again", "fold2"),
        ("valid", "fold3"),
        ("train.best", "fold1+fold2"),
        ("again.best", "fold2"),
        ("valid.best", "fold3"),
    ],
)
def test_weights_are_never_fitted_on_training_clips(split, of, runs, capsys):
    """The predictions of the best checkpoint on a split, SPLIT.best, are of the same clips."""
    for run in runs:
        predicted(0, first_clip=CLIPS).save(run, split)
    splits = {"train": "fold1+fold2", "test": "fold4", split.removesuffix(".best"): of}
    save_config(runs[1], config_of(runs[1].name, splits))
    options = ["--weights", "fitted", "--fit-split", split, "--bootstrap", "0", "--out", runs[0].parent]
    if of == "fold3":
        assert ensemble.main([str(a) for a in (*runs, *options)]) == 0
    else:
        assert f"--fit-split {split}: {runs[1]} was trained on it" in refused(capsys, *runs, *options)


def test_a_split_with_dots_that_no_config_has(runs, capsys):
    save_config(runs[1], config_of(runs[1].name, {"train": "fold1", "test": "fold4"}))
    line = refused(capsys, *runs, "--weights", "fitted", "--fit-split", "train.first.best")
    assert "train.first.best.npz does not exist" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fingerprint": "beef"}, "fingerprint"),
        ({"ids": np.array([f"other{i}" for i in range(CLIPS)])}, "ids"),
        ({"labels": np.array(["cat", "rain", "siren"])}, "labels"),
        ({"targets": np.roll(TARGETS, 1, axis=0)}, "targets"),
        ({"task": "tagging"}, "task"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_other_data_is_refused(runs, capsys, changes, says):
    dataclasses.replace(predicted(1), **changes).save(runs[1], "test")
    line = refused(capsys, *runs)
    assert f"differ in their {says}" in line
    assert "mfcc" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rules", "vote"], "--rules vote: use some of wa"),
        (["--subsets", "mel+fft"], "from mel, mfcc, cqt"),
        (["--subsets", "mel"], "two models or more"),
        (["--weights", "1,2"], "3 positive numbers"),
        (["--weights", "1,2,-1"], "positive"),
        (["--weights", "much"], "--weights much"),
        (["--weights", "1,2,3", "--rules", "ds,deng"], "add wa to --rules"),
        (["--fit-split", "valid"], "--fit-split valid: only --weights fitted uses it"),
        (["--split", "dev"], "dev.npz does not exist"),
        (["--bootstrap", "-3"], "--bootstrap -3: give a number of draws, or 0 for no intervals"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments(runs, capsys, arguments, says):
    assert says in refused(capsys, *runs, *arguments)


def test_a_run_named_twice(runs, capsys):
    link = runs[0].with_name("link")
    link.symlink_to(runs[0])
    for again in (runs[0], link, runs[1] / ".." / runs[0].name):
        assert f"the same run is named twice, as {runs[0]} and {again}: " in refused(capsys, runs[0], again)


def npz(**changes) -> bytes:
    """Return a predictions file with some arrays replaced, or left out if None."""
    saved = dataclasses.replace(predicted(0), max_crops=16)
    arrays = {f.name: np.asarray(getattr(saved, f.name)) for f in dataclasses.fields(Predictions)}
    file = io.BytesIO()
    np.savez(file, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return file.getvalue()


def lying_header() -> bytes:
    """Return a file with an array that claims to hold a terabyte."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 18)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("probabilities.npy", header.getvalue())
    return file.getvalue()


def encrypted() -> bytes:
    """Return a file that is encrypted according to its headers only."""
    file = bytearray(npz())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := file.find(signature, place + 1)) >= 0:
            file[place + flags] |= 1
    return bytes(file)


HOSTILE = {
    "encrypted": encrypted(),
    "empty": b"",
    "text": b"not a zip file",
    "cut": npz()[:-200],
    "pickle": npz(ids=np.array([{"a": 1}] * CLIPS, object)),
    "terabyte": lying_header(),
    "missing": npz(fingerprint=None),
    "nan": npz(probabilities=np.full(TARGETS.shape, np.nan, np.float32)),
    "negative": npz(probabilities=np.full(TARGETS.shape, -1, np.float32)),
    "unnormalised": npz(probabilities=np.zeros(TARGETS.shape, np.float32)),
    "float64": npz(probabilities=np.zeros(TARGETS.shape)),
    "shape": npz(probabilities=np.zeros((CLIPS, 4), np.float32)),
    "targets": npz(targets=TARGETS * 2),
    "task": npz(task=np.array("regression")),
    "step": npz(step=np.array([1, 2])),
    "crops": npz(max_crops=np.array("many")),
    "repeated": npz(ids=np.array(["same"] * CLIPS)),
    "bytes": npz(ids=np.array([b"x"] * CLIPS)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(runs, capsys, name):
    path = predictions.path_of(runs[1], "test")
    path.write_bytes(HOSTILE[name])
    assert str(path) in refused(capsys, *runs)


@pytest.mark.parametrize("max_crops", [5, None])
def test_predictions_come_back_as_they_were(tmp_path, max_crops):
    """Files of earlier versions do not say how many crops were scored."""
    saved = dataclasses.replace(predicted(3), max_crops=max_crops)
    saved.save(tmp_path, "test")
    loaded = predictions.load(tmp_path, "test")
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(saved, field.name))


def test_predictions_of_any_size_come_back(tmp_path, monkeypatch):
    """Beyond MAX_BYTES, a file may take no more memory than it takes on the disk."""
    monkeypatch.setattr(predictions, "MAX_BYTES", 1000)
    saved = predicted(3)
    path = saved.save(tmp_path, "test")
    np.testing.assert_array_equal(predictions.load(tmp_path, "test").probabilities, saved.probabilities)
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    with pytest.raises(ConfigError, match=r"test\.npz cannot be read: its arrays take more than 1000 bytes"):
        predictions.load(tmp_path, "test")


def test_subsets_are_named_as_the_tables_print_them():
    names = ["log_mel+wavegram", "mfcc", "panns_log_mel+wavegram", "runs/fold1(old)"]
    text = "(log_mel+wavegram)+mfcc,mfcc+runs/fold1(old)+(panns_log_mel+wavegram)"
    assert ensemble.choose_subsets(text, names) == [
        ("log_mel+wavegram", "mfcc"),
        ("mfcc", "runs/fold1(old)", "panns_log_mel+wavegram"),
    ]
    every = ensemble.choose_subsets("all", names)
    rows = ensemble.fusion_rows({name: predicted(0) for name in names}, ["wa"], every, draws=0)
    printed = [row["models"] for row in rows if row["rule"] == "wa"]
    assert ensemble.choose_subsets(",".join(printed), names) == every


@pytest.mark.parametrize(
    "text", ["log_mel+wavegram+mfcc", "(log_mel+wavegram", "(log_mel+wavegram)", "+", ""]
)
def test_errors_about_subsets_show_where_brackets_belong(text):
    with pytest.raises(ConfigError, match=r"each once, from \(log_mel\+wavegram\), mfcc$"):
        ensemble.choose_subsets(text, ["log_mel+wavegram", "mfcc"])


def test_subsets_are_all_of_two_and_more():
    subsets = ensemble.choose_subsets("all", "abcde")
    assert len(subsets) == len(set(subsets)) == 26
    assert set(itertools.combinations("abcde", 2)) < set(subsets)


def test_a_run_without_predictions(tmp_path):
    with pytest.raises(ConfigError, match=r"test\.npz does not exist.*--mode=eval"):
        ensemble.load_models([tmp_path], "test")

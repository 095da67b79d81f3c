"""Predictions of several runs become one table; runs that do not match are refused in one line."""

import csv
import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.optimize import minimize
from sklearn import metrics as sk

from configs.base import base
from rann_jax import comparison, ensemble, fusion
from rann_jax.errors import ConfigError
from rann_jax.report import fusion_table
from rann_jax.saved import predictions
from rann_jax.saved.workdir import save_config
from tests.made_predictions import CLIPS, TARGETS, predicted
from tests.refusals import refused

pytestmark = pytest.mark.fast


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / name for name in ("mel", "mfcc", "cqt")]
    for seed, folder in enumerate(folders):
        predicted(seed, 2.0 - 0.5 * seed).save(folder, "test")
        predicted(seed + 10, 2.0 - 0.5 * seed, first_clip=CLIPS).save(folder, "valid")
    return folders


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


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_fitted_weights_maximise_the_likelihood(task):
    probs = np.stack([predicted(seed, s).probabilities for seed, s in ((0, 2.0), (1, 1.5), (2, -0.5))])
    if task == "classification":
        likelihood = (probs * TARGETS).sum(-1)
    else:
        likelihood = np.where(TARGETS, probs, 1 - probs).reshape(3, -1)
    weights = fusion.fit_weights(probs, TARGETS, task=task)
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
    assert "--fit-split" in refused(ensemble.main, capsys, *fitted)
    assert "--fit-split" in refused(ensemble.main, capsys, *fitted, "--fit-split", "test")
    for run in runs:
        predicted(0, first_clip=CLIPS - 1).save(run, "overlapping")
    assert "shares 1 clips" in refused(ensemble.main, capsys, *fitted, "--fit-split", "overlapping")
    out = runs[0].parent / "out"
    arguments = [*fitted, "--fit-split", "valid", "--rules", "wa", "--bootstrap", "0", "--out", out]
    assert ensemble.main([str(a) for a in arguments]) == 0
    fit = np.stack([predictions.load(run, "valid").probabilities for run in runs[1:]])
    expected = "+".join(f"{w:.3f}" for w in fusion.fit_weights(fit, TARGETS))
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
        assert f"--fit-split {split}: {runs[1]} was trained on it" in refused(
            ensemble.main, capsys, *runs, *options
        )


def test_a_split_with_dots_that_no_config_has(runs, capsys):
    save_config(runs[1], config_of(runs[1].name, {"train": "fold1", "test": "fold4"}))
    line = refused(ensemble.main, capsys, *runs, "--weights", "fitted", "--fit-split", "train.first.best")
    assert "train.first.best.npz does not exist" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fingerprint": "beef"}, "fingerprint"),
        (
            {"ids": np.array([f"other{i}" for i in range(CLIPS)])},
            "ids (80 are only in one of them, such as clip0)",
        ),
        ({"labels": np.array(["cat", "rain", "siren"])}, "labels (2 are only in one of them, such as dog)"),
        (
            {"labels": np.array(["rain", "dog", "siren"])},
            "labels (only in their order: write them in the same)",
        ),
        ({"targets": np.roll(TARGETS, 1, axis=0)}, "targets (39 of 40 clips)"),
        ({"task": "tagging"}, "task (classification and tagging)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_other_data_is_refused(runs, capsys, changes, says):
    dataclasses.replace(predicted(1), **changes).save(runs[1], "test")
    line = refused(ensemble.main, capsys, *runs)
    assert f"differ in their {says}" in line
    assert "mfcc" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rules", "vote"], "--rules vote: use some of wa"),
        (["--rules", "dempster-shafer"], "or all; did you mean 'ds'?"),
        (["--subsets", "mel+fft"], "from mel, mfcc, cqt"),
        (["--subsets", "mel"], "two models or more"),
        (["--weights", "1,2"], "3 positive numbers"),
        (["--weights", "1,2,-1"], "positive"),
        (["--weights", "much"], "--weights much"),
        (["--weights", "1,2,3", "--rules", "ds,deng"], "add wa to --rules"),
        (["--fit-split", "valid"], "--fit-split valid: only --weights fitted uses it"),
        (["--split", "dev"], "dev.npz does not exist"),
        (["--groups", "x"], "--groups x: not found in the clip id"),
        (["--bootstrap", "-3"], "--bootstrap -3: give a number of draws, or 0 for no intervals"),
    ],
    ids=lambda value: "=".join(value) if isinstance(value, list) else None,
)
def test_wrong_arguments(runs, capsys, arguments, says):
    assert says in refused(ensemble.main, capsys, *runs, *arguments)


def test_a_run_named_twice(runs, capsys):
    link = runs[0].with_name("link")
    link.symlink_to(runs[0])
    for again in (runs[0], link, runs[1] / ".." / runs[0].name):
        assert f"the same run is named twice, as {runs[0]} and {again}: " in refused(
            ensemble.main, capsys, runs[0], again
        )


def test_subsets_are_named_as_the_tables_print_them():
    names = ["log_mel+wavegram", "mfcc", "panns_log_mel+wavegram", "runs/fold1(old)"]
    text = "(log_mel+wavegram)+mfcc,mfcc+runs/fold1(old)+(panns_log_mel+wavegram)"
    assert ensemble.choose_subsets(text, names) == [
        ("log_mel+wavegram", "mfcc"),
        ("mfcc", "runs/fold1(old)", "panns_log_mel+wavegram"),
    ]
    every = comparison.every_subset(names)
    rows = fusion_table.rows({name: predicted(0) for name in names}, ["wa"], every, draws=0)
    printed = [row["models"] for row in rows if row["rule"] == "wa"]
    assert ensemble.choose_subsets(",".join(printed), names) == every


@pytest.mark.parametrize(
    "text", ["log_mel+wavegram+mfcc", "(log_mel+wavegram", "(log_mel+wavegram)", "+", ""]
)
def test_errors_about_subsets_show_where_brackets_belong(text):
    with pytest.raises(ConfigError, match=r"each once, from \(log_mel\+wavegram\), mfcc$"):
        ensemble.choose_subsets(text, ["log_mel+wavegram", "mfcc"])


def test_models_of_other_programs(runs, tmp_path, capsys):
    """The table is the same if a model's file has only four arrays, in other types and in another order."""
    out = [tmp_path / "out", tmp_path / "again"]
    assert ensemble.main([*map(str, runs), "--out", str(out[0]), "--bootstrap", "20"]) == 0
    order = np.random.default_rng(0).permutation(CLIPS)
    for run in runs[:2]:
        path = predictions.path_of(run, "test")
        with np.load(path) as arrays:
            kept = {name: arrays[name][order] for name in ("ids", "targets", "probabilities")}
            np.savez(
                path,
                **kept | {"probabilities": kept["probabilities"].astype(float), "labels": arrays["labels"]},
            )
    assert ensemble.main([*map(str, runs), "--out", str(out[1]), "--bootstrap", "20"]) == 0
    capsys.readouterr()
    tables = []
    for folder in out:
        with (folder / "ensemble.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    for row, again in zip(*tables, strict=True):
        for name in ("models", "rule", "accuracy", "F1", "p"):
            assert row[name] == again[name]
        assert float(row["mAP"]) == pytest.approx(float(again["mAP"]), abs=1e-9)


def test_two_fingerprints_beside_a_model_that_has_none(runs, capsys):
    dataclasses.replace(predicted(0), fingerprint="").save(runs[0], "test")
    assert ensemble.main([*map(str, runs), "--bootstrap", "0", "--out", str(runs[0])]) == 0
    capsys.readouterr()
    dataclasses.replace(predicted(2), fingerprint="beef").save(runs[2], "test")
    assert "mfcc and cqt differ in their fingerprint: " in refused(ensemble.main, capsys, *runs)


def test_a_run_without_predictions(tmp_path):
    with pytest.raises(ConfigError, match=r"test\.npz does not exist.*--mode=eval"):
        ensemble.load_models([tmp_path], "test")

"""The tables in docs/results.md and results/README.md follow from the predictions in results/."""

import argparse
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from rann_jax import comparison, fusion, metrics, significance
from rann_jax.command_line.config_file import load_config_file
from rann_jax.report import crossval_tables, fusion_table, tables
from rann_jax.saved import predictions
from rann_jax.saved.cells import finished, grid, parse_folds
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("quickly_compiled")]

RESULTS = REPOSITORY / "results"
RESULTS_PAGE = REPOSITORY / "docs" / "results.md"
PAGES = (RESULTS_PAGE, RESULTS / "README.md")
FUSED = ("log_mel", "mfcc", "cqt", "gfcc", "wavegram")  # the features that the deck fuses
SUMMARISED = {"esc10_small": "| [ESC-10]", "ravdess_small": "| [RAVDESS]"}  # rows of the first table
KEPT = sorted(path.parent for path in RESULTS.glob("*/environment.json"))
SINGLE = RESULTS / "single_runs"


@pytest.fixture(params=KEPT, ids=lambda folder: folder.name)
def kept(request):
    """The cells of a cross-validation in results/, and the predictions of its finished cells."""
    folder: Path = request.param
    command = shlex.split(json.loads((folder / "environment.json").read_text())["command"])
    parser = argparse.ArgumentParser()
    for name in ("config", "features", "folds"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--groups", default="")
    options, more = parser.parse_known_args(command)
    overrides = [argument for argument in more if argument.startswith("--config.")]
    folds = parse_folds(options.folds)
    work = grid(options.config, options.features.split(","), folds, folder)
    configs = {cell: load_config_file(cell.config_arg, overrides) for cell in work}
    done = {cell: part for cell, config in configs.items() if (part := finished(cell, config))}
    return work, done, options.groups


def quoted(rows) -> bool:
    """Return whether a page has this table, and the table ends there."""
    return any(f"\n\n{tables.readable(rows)}\n\n" in f"{page.read_text()}\n" for page in PAGES)


def run_or_not(work, done) -> list[dict[str, str]]:
    """Return one row per fold: which features have been trained and scored on it; named after the folder."""
    features = dict.fromkeys(cell.feature for cell in work)
    run = {(cell.feature, cell.fold) for cell in done}
    fold = f"{work[0].workdir.parents[1].name}, fold"
    return [
        {fold: str(k)} | {f: "run" if (f, k) in run else "not run" for f in features}
        for k in dict.fromkeys(cell.fold for cell in work)
    ]


def test_every_folder_but_the_single_runs_is_a_cross_validation():
    assert KEPT
    assert sorted(path for path in RESULTS.iterdir() if path.is_dir()) == sorted([*KEPT, SINGLE])


@pytest.mark.parametrize("name", sorted(path.name for path in SINGLE.iterdir()))
def test_single_runs_are_quoted(name):
    run = predictions.load(SINGLE / name, "test")
    accuracy = metrics.accuracy(run.targets, run.probabilities)
    mean_ap = metrics.mean(metrics.average_precision(run.targets, run.probabilities))
    quoted = f"[accuracy {accuracy:.3f}, mAP {mean_ap:.3f}](results/single_runs/{name})"
    (row,) = (line for line in (REPOSITORY / "README.md").read_text().splitlines() if quoted in line)
    command = json.loads((SINGLE / name / "environment.json").read_text())["command"]
    assert row.split("`")[1] in command
    kept = (SINGLE / name / "metrics.jsonl").read_text()
    seconds = [json.loads(line).get("time/seconds") for line in kept.splitlines()]
    minutes = f"{max(filter(None, seconds)) / 60:.1f} minutes"
    assert f" in {minutes}" in row
    config, _, _ = row.split("`")[1].partition(":")
    said = " ".join((REPOSITORY / config).read_text().split())
    assert f"accuracy {accuracy:.3f}, mAP {mean_ap:.3f}" in said
    assert minutes in said


def test_the_coverage_of_intervals_is_quoted():
    rows = json.loads((REPOSITORY / "benchmarks/results/intervals.json").read_text())["rows"]
    shares = {
        kind: [row[name] for row in rows if row["intervals"] == kind for name in comparison.COLUMNS]
        for kind in ("expanded", "plain")
    }
    said = " ".join(RESULTS_PAGE.read_text().split())
    ends, plain = ([f"{100 * end(values):.1f}" for end in (min, max)] for values in shares.values())
    assert f"in {ends[0]} to {ends[1]}% of 400 test sets" in said
    assert f"without the expansion in {plain[0]} to {plain[1]}%" in said


def test_no_path_of_the_machine_is_published():
    """The location of the data on the machine is private."""
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r'[" =]/\w', path.read_text()), path


def test_every_cell_is_shown_as_run_or_not_run(kept):
    work, done, _ = kept
    assert quoted(run_or_not(work, done))


def test_every_trained_cell_is_in_the_table_of_cells(kept):
    work, done, _ = kept
    assert quoted(crossval_tables.cell_rows([cell for cell in work if cell in done], done))


def test_cells_of_unfinished_folds_are_mentioned(kept):
    """The command of the tables leaves these folds out."""
    work, _, _ = kept
    folder = work[0].workdir.parents[1]
    others = {path.parent for path in folder.glob("*/fold*/config.json")} - {cell.workdir for cell in work}
    said = " ".join(RESULTS_PAGE.read_text().split())
    for workdir in others:
        run = predictions.load(workdir, "test")
        accuracy = metrics.accuracy(run.targets, run.probabilities)
        assert f"{workdir.parent.name} {accuracy:.3f}" in said


def test_features_and_their_intervals(kept):
    work, done, groups = kept
    runs = crossval_tables.by_feature(work, done)
    pooled = {feature: crossval_tables.pool(folds) for feature, folds in runs.items()}
    assert quoted(crossval_tables.feature_rows(runs, pooled, draws=1000, groups=groups))


def test_every_fusion_under_every_rule(kept):
    work, done, groups = kept
    fused = [cell for cell in work if cell.feature in FUSED]
    runs = crossval_tables.by_feature(fused, {cell: done[cell] for cell in fused if cell in done})
    pooled = {feature: crossval_tables.pool(folds) for feature, folds in runs.items()}
    if len(pooled) == 1:
        pytest.skip("one feature has been trained: nothing to fuse yet")
    subsets = comparison.every_subset(list(pooled))
    rows = fusion_table.rows(pooled, list(fusion.RULES), subsets, draws=0, groups=groups)
    assert quoted(fusion_table.by_rule(rows, "accuracy"))
    if begins := SUMMARISED.get(work[0].workdir.parents[1].name):
        best = max(rows[: len(pooled)], key=lambda row: row["accuracy"])
        all_five = {row["rule"]: row for row in rows[-len(fusion.RULES) :]}
        first = max(all_five.values(), key=lambda row: row["accuracy"])
        (said,) = (line for line in RESULTS_PAGE.read_text().splitlines() if line.startswith(begins))
        assert (
            f"| {best['models']} {best['accuracy']:.3f} | {first['accuracy']:.3f} by {first['rule']} (p "
            in said
        )
        for accuracy, rule, p in re.findall(r"(0\.\d+) by (\w+) \(p (0\.\d+)", said):
            assert accuracy == f"{all_five[rule]['accuracy']:.3f}"
            assert float(p) == pytest.approx(all_five[rule]["p"], abs=5e-3)
        for p in re.findall(r"(0\.\d+) as the best of all", said):
            assert float(p) == pytest.approx(first["p_corrected"], abs=5e-3)


def errors(text: str) -> dict[tuple[str, str], float]:
    """Return the errors in a table by feature and library."""
    header, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    cells = ((row[0], zip(header[2:], row[2:], strict=True)) for row in rows)
    return {(feature, by): float(e) for feature, row in cells for by, e in row if e != "-"}


def measured_errors() -> dict[tuple[str, str], float]:
    page = (REPOSITORY / "benchmarks" / "results" / "features_cpu.md").read_text()
    return errors(page.split("Errors alone")[1])


def test_the_errors_of_features_are_those_measured():
    """The page on exactness repeats the table of the benchmark's results file."""
    quoted = errors((REPOSITORY / "docs" / "exactness.md").read_text())
    assert quoted == measured_errors()
    assert len(quoted) > 30


def test_readme_has_our_errors_of_seven_features():
    quoted = errors((REPOSITORY / "README.md").read_text().split("### Exactness")[1].split("## Speed")[0])
    assert len(quoted) == 7
    assert quoted.items() <= measured_errors().items()
    assert {by for _, by in quoted} == {"ours"}


@pytest.fixture(scope="module")
def ravdess():
    """Whether five fused features, by rule, and single ones are right on each clip; its fold and actor."""
    folder = RESULTS / "ravdess_small"
    folds = {f: [predictions.load(folder / f / f"fold{k}", "test") for k in range(1, 5)] for f in FUSED}
    targets = np.concatenate([part.targets for part in folds["mfcc"]])
    probs = {f: np.concatenate([part.probabilities for part in parts]) for f, parts in folds.items()}
    ids = np.concatenate([part.ids for part in folds["mfcc"]])
    right = {f: significance.right(targets, each) for f, each in probs.items()}
    for rule in fusion.RULES:
        fused = np.asarray(fusion.fuse(rule, np.stack(list(probs.values()))))
        right[rule] = significance.right(targets, fused)
    return right, np.repeat(np.arange(4), 360), significance.groups_of(ids, "-([0-9]+)$")


def test_the_main_result_by_fold_and_actor(ravdess):
    right, folds, actors = ravdess
    gains = np.bincount(actors, right["ds"].astype(float) - right["mfcc"])
    better, worse, equal = (gains > 0).sum(), (gains < 0).sum(), (gains == 0).sum()
    by_fold = [
        f"{right['ds'][folds == k].mean():.3f} and {max(right[f][folds == k].mean() for f in FUSED):.3f}"
        for k in range(4)
    ]
    page = " ".join(RESULTS_PAGE.read_text().split())
    assert (
        f"Of the 24 actors, {better} are recognised better than by MFCC alone, {worse} worse and {equal} "
        in page
    )
    assert ", ".join(by_fold) in page

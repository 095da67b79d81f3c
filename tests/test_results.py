"""The tables in docs/results.md and results/README.md follow from the predictions in results/."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

from rann_jax import comparison, crossval_cells, crossval_tables, fusion, fusion_table
from rann_jax.config_file import load_config_file
from rann_jax.report import tables
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("quickly_compiled")]

RESULTS = REPOSITORY / "results"
RESULTS_PAGE = REPOSITORY / "docs" / "results.md"
PAGES = (RESULTS_PAGE, RESULTS / "README.md")
FUSED = ("log_mel", "mfcc", "cqt", "gfcc", "wavegram")  # the features that the deck fuses
SUMMARISED = {"esc10_small": "| [ESC-10]", "ravdess_small": "| [RAVDESS]"}  # rows of the first table
KEPT = sorted(path.parent for path in RESULTS.glob("*/environment.json"))


@pytest.fixture(params=KEPT, ids=lambda folder: folder.name)
def kept(request):
    """The cells of a cross-validation in results/, and the predictions of its finished cells."""
    folder: Path = request.param
    command = shlex.split(json.loads((folder / "environment.json").read_text())["command"])
    parser = argparse.ArgumentParser()
    for name in ("config", "features", "folds"):
        parser.add_argument(f"--{name}", required=True)
    options, more = parser.parse_known_args(command)
    overrides = [argument for argument in more if argument.startswith("--config.")]
    folds = crossval_cells.parse_folds(options.folds)
    work = crossval_cells.grid(options.config, options.features.split(","), folds, folder)
    configs = {cell: load_config_file(cell.config_arg, overrides) for cell in work}
    return work, {
        cell: part for cell, config in configs.items() if (part := crossval_cells.finished(cell, config))
    }


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


def test_every_folder_is_a_cross_validation():
    assert KEPT
    assert sorted(path for path in RESULTS.iterdir() if path.is_dir()) == KEPT


def test_no_path_of_the_machine_is_published():
    """The location of the data on the machine is private."""
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r'[" =]/\w', path.read_text()), path


def test_every_cell_is_shown_as_run_or_not_run(kept):
    assert quoted(run_or_not(*kept))


def test_every_trained_cell_is_in_the_table_of_cells(kept):
    work, done = kept
    assert quoted(crossval_tables.cell_rows([cell for cell in work if cell in done], done))


def test_features_and_their_intervals(kept):
    runs = crossval_tables.by_feature(*kept)
    pooled = {feature: crossval_tables.pool(folds) for feature, folds in runs.items()}
    assert quoted(crossval_tables.feature_rows(runs, pooled, draws=1000))


def test_every_fusion_under_every_rule(kept):
    work, done = kept
    fused = [cell for cell in work if cell.feature in FUSED]
    runs = crossval_tables.by_feature(fused, {cell: done[cell] for cell in fused if cell in done})
    pooled = {feature: crossval_tables.pool(folds) for feature, folds in runs.items()}
    if len(pooled) == 1:
        pytest.skip("one feature has been trained: nothing to fuse yet")
    rows = fusion_table.rows(pooled, list(fusion.RULES), comparison.every_subset(list(pooled)), draws=0)
    lines = fusion_table.by_rule(rows, "accuracy")
    assert quoted(lines)
    if begins := SUMMARISED.get(work[0].workdir.parents[1].name):
        best = max(rows[: len(pooled)], key=lambda row: row["accuracy"])
        fused = max(value for name, value in lines[-1].items() if name in fusion.RULES)
        (said,) = (line for line in RESULTS_PAGE.read_text().splitlines() if line.startswith(begins))
        assert f"| {best['models']} {best['accuracy']:.3f} | {fused:.3f} " in said


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

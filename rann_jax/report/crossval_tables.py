"""The tables of a cross-validation: its cells, its features with all folds pooled, and their fusions."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rann_jax import comparison, fusion
from rann_jax.errors import ConfigError
from rann_jax.report import fusion_table, tables
from rann_jax.saved import environment
from rann_jax.saved.cells import Cell
from rann_jax.saved.predictions import POOLED, Predictions
from rann_jax.tasks import HEADLINE
from rann_jax.writers import METRICS, read_metrics


def by_feature(work: Sequence[Cell], done: Mapping[Cell, Predictions]) -> dict[str, dict[int, Predictions]]:
    """Return predictions by feature and fold, for the folds that every feature with a finished cell has."""
    runs: dict[str, dict[int, Predictions]] = {}
    for cell in work:
        if cell in done:
            runs.setdefault(cell.feature, {})[cell.fold] = done[cell]
    common = set.intersection(*map(set, runs.values()))
    return {name: {fold: part for fold, part in of.items() if fold in common} for name, of in runs.items()}


def pool(runs: Mapping[int, Predictions]) -> Predictions:
    """Join the held-out predictions of several folds into one split.

    Raises:
      ConfigError: the folds share clips or differ in labels.
    """
    parts = [runs[fold] for fold in sorted(runs)]
    if any(not np.array_equal(part.labels, parts[0].labels) for part in parts):
        raise ConfigError("the folds differ in their labels: they are not of one data set")
    ids = np.concatenate([part.ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        raise ConfigError("a clip is in two folds: the preset `fold` must change config.splits.test")
    return Predictions(
        ids=ids,
        targets=np.concatenate([part.targets for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        labels=parts[0].labels,
        fingerprint=hashlib.sha256("".join(part.fingerprint for part in parts).encode()).hexdigest(),
        task=parts[0].task,
        step=min(part.step for part in parts),
    )


def cell_rows(work: Sequence[Cell], done: Mapping[Cell, Predictions]) -> list[dict[str, Any]]:
    """Return one row per cell, run or not: its headline, clips, minutes, and devices of its last launch.

    Minutes run from the first step to the last score. They exclude startup, and work that a killed run did
    after its last checkpoint.

    Raises:
      ConfigError: a file of a run cannot be read.
    """
    rows = []
    measure = HEADLINE[next(iter(done.values())).task] if done else "accuracy"
    for cell in work:
        row: dict[str, Any] = {"feature": cell.feature, "fold": str(cell.fold)}
        row[measure] = "not finished" if cell.begun else "not run"
        row |= dict.fromkeys(("clips", "minutes", "devices"), "")
        if (part := done.get(cell)) is not None:
            row[measure] = fusion_table.headline(part)
            row["clips"] = str(len(part.ids))
            row["minutes"] = _minutes(cell.workdir / METRICS)
            row["devices"] = environment.load(cell.workdir).get("devices", "")
        rows.append(row)
    return rows


def _minutes(metrics: Path) -> str:
    """Return the minutes of a whole run; empty if it did not record them, as in earlier versions."""
    seconds = [row["time/seconds"] for row in read_metrics(metrics) if row.get("time/seconds") is not None]
    return f"{seconds[-1] / 60:.1f}" if seconds else ""


def feature_rows(
    runs: Mapping[str, Mapping[int, Predictions]],
    pooled: Mapping[str, Predictions],
    draws: int,
    groups: str = "",
) -> list[dict[str, Any]]:
    """Return one row per feature: measures of the pooled predictions, and the headline of each fold."""
    rows = []
    for feature, measures in fusion_table.single_rows(pooled, draws, groups).items():
        folds = {f"fold{k}": fusion_table.headline(part) for k, part in sorted(runs[feature].items())}
        rows.append({"feature": feature, **measures, **folds})
    return rows


def write(
    workdir: Path, work: Sequence[Cell], done: Mapping[Cell, Predictions], draws: int, groups: str = ""
) -> str:
    """Write the tables of all cells, and of the finished ones pooled and fused; return the text to print.

    Args:
      workdir: folder of the cross-validation.
      work: all cells.
      done: predictions of the finished ones.
      draws: number of bootstrap draws.
      groups: see `fusion_table.rows`.

    Raises:
      ConfigError: the cells do not have the same data, no fold is finished by every feature with a finished
        cell, or the groups cannot be told.
    """
    runs = by_feature(work, done)
    if not all(runs.values()):
        raise ConfigError(
            f"{workdir}: no fold is finished for all of {', '.join(runs)}: name fewer in --features"
        )
    out = workdir / "report"
    shown = [tables.write(out, "cells", cell_rows(work, done))]
    pooled = {feature: pool(folds) for feature, folds in runs.items()}
    fusion_table.check_same_data(pooled)
    for feature, whole in pooled.items():
        whole.save(workdir / feature, POOLED)
    shown.append(tables.write(out, "features", feature_rows(runs, pooled, draws, groups)))
    if len(pooled) > 1:
        subsets = comparison.every_subset(list(pooled))
        rows = fusion_table.rows(pooled, list(fusion.RULES), subsets, draws=draws, groups=groups)
        measure = HEADLINE[next(iter(pooled.values())).task]
        fusion_table.write(out, "fusion", rows, measure=measure, of="pooled folds")
        shown.append(tables.markdown(fusion_table.by_rule(rows, measure)))
    return "\n\n".join(shown)

"""The fusion table of predictions: its rows, which are those of `comparison`, and the files made of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rann_jax import comparison, significance
from rann_jax.comparison import COLUMNS, SINGLE, Weights
from rann_jax.errors import ConfigError
from rann_jax.report import plots, tables
from rann_jax.saved.predictions import Predictions


def check_same_data(models: Mapping[str, Predictions]) -> None:
    """Raise ConfigError unless all models predict the same clips, in the same order, with the same labels.

    The data's fingerprints are compared where they are known: files of other programs have none.
    """
    (first_name, first), *others = models.items()
    for name, other in others:
        for what in ("task", "labels", "ids", "targets"):
            if not np.array_equal(getattr(first, what), getattr(other, what)):
                _refuse(first_name, name, what, _difference(getattr(first, what), getattr(other, what)))
    (first_name, first), *others = [(n, m) for n, m in models.items() if m.fingerprint] or models.items()
    for name, other in others:
        if other.fingerprint != first.fingerprint:
            _refuse(first_name, name, "fingerprint", "")


def _refuse(first: str, second: str, what: str, how: str) -> None:
    raise ConfigError(
        f"{first} and {second} differ in their {what}{how}: fuse only runs that were scored on the same "
        "split of the same data"
    )


def _difference(first: Any, second: Any) -> str:
    """Return in what two tasks, lists of names or targets differ, as an addition to a message."""
    if isinstance(first, str):
        return f" ({first} and {second})"
    if first.ndim > 1:
        return f" ({np.any(first != second, axis=1).sum()} of {len(first)} clips)"
    only_first, only_second = np.setdiff1d(first, second), np.setdiff1d(second, first)
    if not len(only_first) and not len(only_second):
        return " (only in their order: write them in the same)"
    alone = np.concatenate([only_first, only_second])
    return f" ({len(alone)} are only in one of them, such as {alone[0]})"


def rows(
    models: Mapping[str, Predictions],
    rules: Sequence[str],
    subsets: Sequence[Sequence[str]],
    *,
    weights: Weights | None = None,
    draws: int = 1000,
    groups: str = "",
) -> list[dict[str, Any]]:
    """Return the rows of `comparison.compare` for predictions of the same clips, by model name.

    Args:
      models: predictions of the same clips, by model name.
      rules: see `comparison.compare`; so are the next three.
      subsets: names of the models to fuse.
      weights: weights of a subset's average.
      draws: number of bootstrap draws.
      groups: regular expression that finds the group of a clip in its id; empty: each clip is independent.

    Raises:
      ConfigError: the groups cannot be told.
    """
    some = next(iter(models.values()))
    return comparison.compare(
        {name: model.probabilities for name, model in models.items()},
        some.targets,
        task=some.task,
        rules=rules,
        subsets=subsets,
        weights=weights,
        draws=draws,
        groups=significance.groups_of(some.ids, groups) if groups else None,
    )


def single_rows(
    models: Mapping[str, Predictions], draws: int, groups: str = ""
) -> dict[str, dict[str, float]]:
    """Return each measure of every single model, with its interval, by the model's name."""
    table = rows(models, [], [], draws=draws, groups=groups)
    return {row["models"]: {key: row[key] for key in row if key.startswith(COLUMNS)} for row in table}


def headline(predicted: Predictions) -> float:
    """Return the measure that its task's models are compared by: accuracy, or mAP for tagging."""
    return comparison.headline(predicted.task, predicted.targets, predicted.probabilities)


def by_rule(table: Sequence[Mapping[str, Any]], measure: str) -> list[dict[str, Any]]:
    """Return a measure with a row per model or subset and a column per rule or `single`, as in the deck."""
    rules = dict.fromkeys((row["rule"] for row in table), np.nan)
    lines: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in table:
        line = lines.setdefault((row["models"], row["rule"] == SINGLE), {"models": row["models"], **rules})
        line[row["rule"]] = row[measure]
    return list(lines.values())


def fusion_map(table: Sequence[Mapping[str, Any]], measure: str, of: str) -> Figure:
    """Return a heat map of a measure by subset and rule; `of` says what was scored."""
    lines = by_rule(table, measure)
    _, *rules = lines[0]
    values = np.array([[line[rule] for rule in rules] for line in lines])
    return plots.heat_map(values, [line["models"] for line in lines], rules, f"{measure}, {of}")


def write(out: Path, name: str, table: Sequence[Mapping[str, Any]], *, measure: str, of: str) -> list[Path]:
    """Write NAME.csv, NAME.md and, for a measure by subset and rule, NAME_MEASURE.md and NAME.png."""
    grid, picture = out / f"{name}_{measure}.md", out / f"{name}.png"
    tables.write(out, name, table)
    tables.write_markdown(grid, tables.markdown(by_rule(table, measure)))
    plots.save(fusion_map(table, measure, of), picture)
    return [out / f"{name}.csv", out / f"{name}.md", grid, picture]

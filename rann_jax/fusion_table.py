"""The fusion table: a row per model, and one per subset of them and fusion rule, on the same clips.

Each row has accuracy, mAP, F1 and d' with 95% bootstrap intervals, the mean conflict of the models, and
McNemar's test against the best single model.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from rann_jax import fusion, significance
from rann_jax.errors import ConfigError
from rann_jax.fusion_weights import Weights
from rann_jax.predictions import Predictions
from rann_jax.report import plots, tables
from rann_jax.tasks import F1_THRESHOLD, HEADLINE

SINGLE = "single"
# The measures of a row, and the range of each.
RANGES = {"accuracy": (0, 1), "mAP": (0, 1), "F1": (0, 1), "d_prime": (-np.inf, np.inf)}
COLUMNS = tuple(RANGES)


def check_same_data(models: Mapping[str, Predictions]) -> None:
    """Raise ConfigError unless all models predict the same clips with the same labels."""
    (first_name, first), *others = models.items()
    for name, other in others:
        for what in ("task", "labels", "ids", "targets", "fingerprint"):
            if not np.array_equal(getattr(first, what), getattr(other, what)):
                raise ConfigError(
                    f"{first_name} and {name} differ in their {what}: fuse only runs that were scored "
                    "on the same split of the same data"
                )


def every_subset(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the subsets of two models and more, smaller ones first."""
    sizes = range(2, len(names) + 1)
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def rows(
    models: Mapping[str, Predictions],
    rules: Sequence[str],
    subsets: Sequence[Sequence[str]],
    *,
    weights: Weights | None = None,
    draws: int = 1000,
) -> list[dict[str, Any]]:
    """Return one row per single model, then one per subset and rule.

    Args:
      models: predictions of the same clips, by model name.
      rules: names from fusion.RULES.
      subsets: names of the models to fuse.
      weights: maps a subset to the weights of its weighted average; None means equal weights.
      draws: number of bootstrap draws; 0 leaves intervals empty. All rows share the draws.

    Returns:
      Rows with models, rule, each measure with its interval, conflict, p (McNemar's test against the single
      model that is best by HEADLINE; a model is right if its most probable class is), and the weights if they
      are not equal.
    """
    some = next(iter(models.values()))
    counts = significance.draw_counts(len(some.ids), draws) if draws else None
    singles = {name: model.probabilities for name, model in models.items()}
    best = max(models, key=lambda name: np.nan_to_num(headline(models[name]), nan=-1.0))
    hits = significance.right(some.targets, singles[best])
    table = []
    for name, probs in singles.items():
        table.append(_row(name, SINGLE, probs, float("nan"), some, counts, hits))
    # The bar is shown on a terminal only.
    for subset in tqdm(subsets, desc="fuse", unit=" subsets", disable=None):
        stacked = np.stack([singles[name] for name in subset])
        stacked = stacked / stacked.sum(-1, keepdims=True) if some.task == "classification" else stacked
        conflict = float(np.mean(fusion.conflict(fusion.masses_for(some.task, stacked))))
        for rule in rules:
            shares = weights(subset) if weights and rule == "wa" else None
            fused = np.asarray(fusion.fuse(rule, stacked, task=some.task, weights=shares))
            row = _row(joined(subset), rule, fused, conflict, some, counts, hits)
            table.append(row | {"weights": "+".join(f"{share:.3f}" for share in shares or ())})
    return table


def single_rows(models: Mapping[str, Predictions], draws: int) -> dict[str, dict[str, float]]:
    """Return each measure of every single model, with its interval, by the model's name."""
    table = rows(models, [], [], draws=draws)
    return {row["models"]: {key: row[key] for key in row if key.startswith(COLUMNS)} for row in table}


def joined(subset: Sequence[str]) -> str:
    """Return a subset's name; a model with a plus in its own name, such as log_mel+wavegram, is bracketed."""
    return "+".join(f"({name})" if "+" in name else name for name in subset)


def _row(
    models: str,
    rule: str,
    probs: np.ndarray,
    conflict: float,
    truth: Predictions,
    counts: np.ndarray | None,
    best: np.ndarray,
) -> dict[str, Any]:
    exact = _measured(truth, probs)
    drawn = None if counts is None else _measured(truth, probs, counts)
    row: dict[str, Any] = {"models": models, "rule": rule}
    for name in COLUMNS:
        row[name] = float(exact[name][0])
        ends = (np.nan, np.nan)
        if drawn is not None:
            ends = significance.interval(drawn[name], row[name], within=RANGES[name])
        row[f"{name}_low"], row[f"{name}_high"] = ends
    p = significance.mcnemar(significance.right(truth.targets, probs), best)
    return row | {"conflict": conflict, "p": p, "weights": ""}


def _measured(truth: Predictions, probs: np.ndarray, counts: np.ndarray | None = None) -> dict[str, Any]:
    """Return the measures of bootstrap draws, (draws,) each; by default of one that has every clip once."""
    if counts is None:
        counts = np.ones((1, len(probs)))  # float64, which gives exactly the scores of `metrics`
    return significance.scores(truth.targets, probs, counts, F1_THRESHOLD[truth.task])


def headline(predicted: Predictions) -> float:
    """Return the measure that its task's models are compared by: accuracy, or mAP for tagging."""
    return float(_measured(predicted, predicted.probabilities)[HEADLINE[predicted.task]][0])


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

"""Fuse the predictions of trained models and score every subset of them under every rule.

  python -m rann_jax.ensemble runs/mel runs/mfcc runs/cqt --rules all --subsets all

reads predictions/SPLIT.npz of each run and checks that all have the same clips, labels and data. It writes
ensemble.csv and ensemble.md to --out: accuracy, mAP, F1 and d' with 95% bootstrap intervals, the mean
conflict of the models, and McNemar's test against the best single model. ensemble_accuracy.md (in tagging
ensemble_mAP.md) and ensemble.png show this measure alone. Existing files are overwritten.

Rules: wa (weighted average), ds (Dempster-Shafer), ids (improved), murphy, deng. Weights of the average:
equal, given (--weights 0.5,0.3,0.2), or fitted on another split (--weights fitted --fit-split valid), which
the config's preset valid holds out of training, as in configs/esc50.py:fold=1,valid=fold5.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from rann_jax import fusion, fusion_weights, predictions, significance
from rann_jax.errors import ConfigError
from rann_jax.fusion_weights import Weights
from rann_jax.predictions import Predictions
from rann_jax.program import guarded
from rann_jax.report import plots, tables
from rann_jax.tasks import F1_THRESHOLD, HEADLINE
from rann_jax.workdir import CONFIG_FILE, check_distinct, load_config

SINGLE = "single"
RANGES = {"accuracy": (0, 1), "mAP": (0, 1), "F1": (0, 1), "d_prime": (-np.inf, np.inf)}
MEASURES = tuple(RANGES)


def load_models(runs: Sequence[Path], split: str) -> dict[str, Predictions]:
    """Return each run's predictions, by the name of its feature, or of its folder if features repeat.

    Raises:
      ConfigError: a file is missing or damaged, or the runs do not have the same data.
    """
    check_distinct(runs)
    names = [_feature(run) for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    models = {name: predictions.load(run, split) for name, run in zip(names, runs, strict=True)}
    check_same_data(models)
    return models


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


def choose_subsets(text: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the subsets that `text` asks for: 'all', or a list such as 'log_mel+mfcc,log_mel+cqt'.

    A subset has at least two models, and is written as `_joined` prints it.

    Raises:
      ConfigError: a name is unknown or repeated, or a subset has fewer than two.
    """
    if text == "all":
        sizes = range(2, len(names) + 1)
        return [subset for size in sizes for subset in itertools.combinations(names, size)]
    by_printed = {_joined([name]): name for name in names}
    subsets = []
    for part in text.split(","):
        printed = re.split(r"\+(?![^(]*\))", part)  # at each plus outside of brackets
        if not by_printed.keys() >= set(printed) or len(set(printed)) < len(printed) or len(printed) < 2:
            raise ConfigError(
                f"--subsets {part}: join two models or more with +, each once, from {', '.join(by_printed)}"
            )
        subsets.append(tuple(by_printed[name] for name in printed))
    return subsets


def choose_rules(text: str) -> list[str]:
    """Return the rules that `text` asks for: 'all', or a list such as 'wa,ds'.

    Raises:
      ConfigError: a rule is unknown.
    """
    rules = list(fusion.RULES) if text == "all" else text.split(",")
    for rule in rules:
        if rule not in fusion.RULES:
            raise ConfigError(f"--rules {rule}: use some of {', '.join(fusion.RULES)}, or all")
    return rules


def fusion_rows(
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
    rows = []
    for name, probs in singles.items():
        rows.append(_row(name, SINGLE, probs, float("nan"), some, counts, hits))
    # The bar is shown on a terminal only.
    for subset in tqdm(subsets, desc="fuse", unit=" subsets", disable=None):
        stacked = np.stack([singles[name] for name in subset])
        stacked = stacked / stacked.sum(-1, keepdims=True) if some.task == "classification" else stacked
        conflict = float(np.mean(fusion.conflict(fusion.masses_for(some.task, stacked))))
        for rule in rules:
            shares = weights(subset) if weights and rule == "wa" else None
            fused = np.asarray(fusion.fuse(rule, stacked, task=some.task, weights=shares))
            row = _row(_joined(subset), rule, fused, conflict, some, counts, hits)
            rows.append(row | {"weights": "+".join(f"{share:.3f}" for share in shares or ())})
    return rows


def _joined(subset: Sequence[str]) -> str:
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
    for name in MEASURES:
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


def readable(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table in Markdown, with intervals in brackets."""
    return tables.markdown([tables.with_intervals(row) for row in rows])


def by_rule(rows: Sequence[Mapping[str, Any]], measure: str) -> list[dict[str, Any]]:
    """Return a measure with a row per model or subset and a column per rule or `single`, as in the deck."""
    rules = dict.fromkeys((row["rule"] for row in rows), np.nan)
    lines: dict[tuple[str, bool], dict[str, Any]] = {}
    for row in rows:
        line = lines.setdefault((row["models"], row["rule"] == SINGLE), {"models": row["models"], **rules})
        line[row["rule"]] = row[measure]
    return list(lines.values())


def fusion_map(rows: Sequence[Mapping[str, Any]], measure: str, of: str) -> Figure:
    """Return a heat map of a measure by subset and rule; `of` says what was scored."""
    lines = by_rule(rows, measure)
    _, *rules = lines[0]
    values = np.array([[line[rule] for rule in rules] for line in lines])
    return plots.heat_map(values, [line["models"] for line in lines], rules, f"{measure}, {of}")


def write(out: Path, name: str, rows: Sequence[Mapping[str, Any]], *, measure: str, of: str) -> list[Path]:
    """Write NAME.csv, NAME.md and, for a measure by subset and rule, NAME_MEASURE.md and NAME.png."""
    endings = (".csv", ".md", f"_{measure}.md", ".png")
    table, text, grid, picture = written = [out / f"{name}{ending}" for ending in endings]
    tables.write_csv(table, rows)
    tables.write_markdown(text, readable(rows))
    tables.write_markdown(grid, tables.markdown(by_rule(rows, measure)))
    plots.save(fusion_map(rows, measure, of), picture)
    return written


def _feature(run: Path) -> str:
    return str(load_config(run).feature.name) if (run / CONFIG_FILE).exists() else run.name


def check_weights(options: argparse.Namespace, rules: Sequence[str]) -> None:
    """Raise ConfigError if the command line gives weights that would not be used."""
    if options.weights != "equal" and "wa" not in rules:
        raise ConfigError(f"--weights {options.weights}: only the rule wa uses weights: add wa to --rules")
    if options.fit_split and options.weights != "fitted":
        raise ConfigError(f"--fit-split {options.fit_split}: only --weights fitted uses it: add that")


def check_untrained(runs: Sequence[Path], split: str) -> None:
    """Raise ConfigError if a run was trained on the split, where overfitted models would get high weights."""
    for run in runs:
        if not (run / CONFIG_FILE).exists():  # predictions alone do not say what the model was trained on
            continue
        splits = load_config(run).splits.to_dict()  # a ConfigDict would read a dot as a path
        scored = predictions.scored_split(split)
        if set(splits.get(scored, scored).split("+")) & set(splits.get("train", "").split("+")):
            raise ConfigError(
                f"--fit-split {split}: {run} was trained on it: train with the preset valid=SPLIT"
            )


def _weights(options: argparse.Namespace, models: Mapping[str, Predictions]) -> Weights | None:
    if options.weights == "equal":
        return None
    if options.weights != "fitted":
        return fusion_weights.given(options.weights, list(models))
    if not options.fit_split or options.fit_split == options.split:
        raise ConfigError("--weights fitted: name a split other than the scored one with --fit-split")
    check_untrained(options.runs, options.fit_split)
    others = load_models(options.runs, options.fit_split)
    return fusion_weights.fitted_on(others, next(iter(models.values())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.ensemble",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN_DIR", type=Path, nargs="+", help="workdirs of trained models")
    parser.add_argument("--rules", default="all", help="all, or some: wa,ds,ids,murphy,deng")
    parser.add_argument("--subsets", default="all", help="all, or some: log_mel+mfcc,(log_mel+wavegram)+cqt")
    parser.add_argument("--split", default="test", help="split to score (default: %(default)s)")
    parser.add_argument("--weights", default="equal", help="equal, fitted, or numbers in the order of runs")
    parser.add_argument("--fit-split", default="", help="split to fit the weights on, for --weights fitted")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap draws; 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("."), help="folder to write to (default: the current one)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError: the user can fix it.
    """
    significance.check_draws(options.bootstrap)
    rules = choose_rules(options.rules)
    check_weights(options, rules)
    models = load_models(options.runs, options.split)
    subsets = choose_subsets(options.subsets, list(models))
    weights = _weights(options, models)
    rows = fusion_rows(models, rules, subsets, weights=weights, draws=options.bootstrap)
    measure = HEADLINE[next(iter(models.values())).task]
    written = write(options.out, "ensemble", rows, measure=measure, of=options.split)
    print(readable(rows))
    print(*written, sep="\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

"""Fuse the predictions of trained models and score every subset of them under every rule.

  python -m rann_jax.ensemble runs/mel runs/mfcc runs/cqt --rules all --subsets all

reads predictions/SPLIT.npz of each run, or of any other program that wrote ids, targets, probabilities and
labels there, and checks that all have the same clips, labels and data. It writes ensemble.csv and ensemble.md
to --out: accuracy, mAP, F1 and d' with 95% bootstrap intervals, the mean conflict of the models, and p of
McNemar's test against the best single model. ensemble_accuracy.md (in tagging ensemble_mAP.md) and
ensemble.png show this measure alone. Existing files are overwritten.

If several clips are of one speaker or recording, say so with --groups: intervals then draw whole groups, p is
of a test that flips the signs of whole groups, and p_corrected allows for the choice among all rows.

Rules: wa (weighted average), ds (Dempster-Shafer), ids (improved), murphy, deng. Weights of the average:
equal, given (--weights 0.5,0.3,0.2), or fitted on another split (--weights fitted --fit-split valid), which
the config's preset valid holds out of training, as in configs/esc50.py:fold=1,valid=fold5.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rann_jax import comparison, fusion, significance
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.comparison import Weights
from rann_jax.errors import ConfigError
from rann_jax.report import fusion_table, tables
from rann_jax.saved import predictions
from rann_jax.saved.predictions import Predictions
from rann_jax.saved.workdir import CONFIG_FILE, check_distinct, load_config
from rann_jax.tasks import HEADLINE


def load_models(runs: Sequence[Path], split: str) -> dict[str, Predictions]:
    """Return each run's predictions, by the name of its feature, or of its folder if features repeat.

    All have their clips in the order of the first run's.

    Raises:
      ConfigError: a file is missing or damaged, or the runs do not have the same data.
    """
    check_distinct(runs)
    names = [_feature(run) for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    loaded = [predictions.load(run, split) for run in runs]
    models = {n: predictions.in_order(one, loaded[0].ids) for n, one in zip(names, loaded, strict=True)}
    fusion_table.check_same_data(models)
    return models


def choose_subsets(text: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the subsets that `text` asks for: 'all', or a list such as 'log_mel+mfcc,log_mel+cqt'.

    A subset has at least two models, and is written as `comparison.joined` prints it.

    Raises:
      ConfigError: a name is unknown or repeated, or a subset has fewer than two.
    """
    if text == "all":
        return comparison.every_subset(names)
    by_printed = {comparison.joined([name]): name for name in names}
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
            raise ConfigError(
                f"--rules {rule}: use some of {', '.join(fusion.RULES)}, or all" + fusion.suggested_rule(rule)
            )
    return rules


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


def fitted_weights(others: Mapping[str, Predictions], scored: Predictions) -> Weights:
    """Return weights fitted, separately for every subset, on clips other than the scored ones.

    Raises:
      ConfigError: a clip is in both splits.
    """
    first = next(iter(others.values()))
    shared = np.intersect1d(first.ids, scored.ids)
    if len(shared):
        raise ConfigError(f"--fit-split shares {len(shared)} clips with the scored split: name another split")

    def weights(subset: Sequence[str]) -> Sequence[float]:
        probs = np.stack([others[name].probabilities for name in subset])
        return fusion.fit_weights(probs, first.targets, task=first.task).tolist()

    return weights


def given_weights(text: str, names: Sequence[str]) -> Weights:
    """Return weights from text such as '0.5,0.3,0.2', in the order of the models.

    Raises:
      ConfigError: the text is not one positive number per model.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--weights {text}: give equal, fitted, or one number per model") from error
    if len(values) != len(names) or not np.isfinite(values).all() or min(values) <= 0:
        raise ConfigError(f"--weights {text}: give {len(names)} positive numbers, one per model")
    share = dict(zip(names, values, strict=True))
    return lambda subset: [share[name] for name in subset]


def _weights(options: argparse.Namespace, models: Mapping[str, Predictions]) -> Weights | None:
    if options.weights == "equal":
        return None
    if options.weights != "fitted":
        return given_weights(options.weights, list(models))
    if not options.fit_split or options.fit_split == options.split:
        raise ConfigError("--weights fitted: name a split other than the scored one with --fit-split")
    check_untrained(options.runs, options.fit_split)
    others = load_models(options.runs, options.fit_split)
    return fitted_weights(others, next(iter(models.values())))


def _parser() -> Parser:
    parser = Parser("rann_jax.ensemble", __doc__)
    parser.add_argument("runs", metavar="WORKDIR", type=Path, nargs="+", help="workdirs of trained models")
    parser.add_argument("--rules", default="all", help="all, or some: wa,ds,ids,murphy,deng")
    parser.add_argument("--subsets", default="all", help="all, or some: log_mel+mfcc,(log_mel+wavegram)+cqt")
    parser.add_argument("--split", default="test", help="split to score (default: %(default)s)")
    parser.add_argument("--weights", default="equal", help="equal, fitted, or numbers in the order of runs")
    parser.add_argument("--fit-split", default="", help="split to fit the weights on, for --weights fitted")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap draws; 0 for none (default: %(default)s)"
    )
    parser.add_argument("--groups", default="", metavar="REGEX", help=significance.GROUPS_HELP)
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
    rows = fusion_table.rows(
        models, rules, subsets, weights=weights, draws=options.bootstrap, groups=options.groups
    )
    measure = HEADLINE[next(iter(models.values())).task]
    written = fusion_table.write(options.out, "ensemble", rows, measure=measure, of=options.split)
    print(tables.readable(rows))
    print(*written, sep="\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

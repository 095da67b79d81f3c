"""Score models on the same clips: a row per model, and one per subset of them and fusion rule.

Each row has accuracy, mAP, F1 and d' with 95% bootstrap intervals, the mean conflict of the models, and p of
a test against the best single model. The probabilities may be of any program.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from rann_jax import fusion, significance
from rann_jax.masses import Masses, checked_for, checked_targets
from rann_jax.tasks import F1_THRESHOLD, HEADLINE

SINGLE = "single"
# The measures of a row, and the range of each.
RANGES = {"accuracy": (0, 1), "mAP": (0, 1), "F1": (0, 1), "d_prime": (-np.inf, np.inf)}
COLUMNS = tuple(RANGES)

Weights = Callable[[Sequence[str]], Sequence[float]]  # names of a subset -> weights of its average


def compare(
    probs: Mapping[str, Masses],
    targets: Masses,
    *,
    task: str = "classification",
    rules: Sequence[str] | None = None,
    subsets: Sequence[Sequence[str]] | None = None,
    weights: Weights | None = None,
    draws: int = 1000,
    groups: Sequence[Any] | np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Return one row per single model, then one per subset and rule.

    Args:
      probs: probabilities (n, C) by model name, all of the same clips in the same order.
      targets: (n, C), one-hot, or multi-hot for tagging.
      task: "classification" (probabilities of a clip sum to 1) or "tagging" (each class by itself).
      rules: names from fusion.RULES; None means all.
      subsets: names of the models to fuse; None means every subset of two and more.
      weights: maps the names of a subset to the weights of its weighted average; None means equal weights.
      draws: number of bootstrap draws; 0 leaves intervals empty (NaN). All rows share the draws.
      groups: (n,) the speaker or recording of each clip, if clips of one are not independent. Then whole
        groups are drawn, and p is by the signs of groups (`significance.sign_flips`), not McNemar's.

    Returns:
      Rows with `models` (names joined by +), `rule` ("single" for a model alone), `accuracy`, `mAP`, `F1` and
      `d_prime`, each with the ends of its interval (_low, _high), `conflict`, `p` (of the test against the
      single model with the best accuracy, in tagging the best mAP; a model is right if its most probable
      class is), with groups `p_corrected` for the number of rows, and `weights`, as text, if they are not
      equal.

    Raises:
      ValueError: the task, a rule or a name is unknown, there are no models, arrays are malformed or of
        different shapes, or there are fewer than two groups.

    >>> models = {"mel": [[0.9, 0.1], [0.6, 0.4]], "cqt": [[0.4, 0.6], [0.1, 0.9]]}
    >>> rows = compare(models, [[1, 0], [0, 1]], rules=["wa"], draws=0)
    >>> [(row["models"], row["rule"], row["accuracy"]) for row in rows]
    [('mel', 'single', 0.5), ('cqt', 'single', 0.5), ('mel+cqt', 'wa', 1.0)]
    """
    singles, truth = _checked(probs, targets, task, draws)
    rules = list(fusion.RULES) if rules is None else rules
    best = max(singles.values(), key=lambda one: _merit(task, truth, one))
    score = _Scorer(task, truth, draws, best, _numbered(groups, len(truth)))
    table = [score.row(name, SINGLE, one, float("nan")) for name, one in singles.items()]
    # The bar is shown on a terminal only.
    for subset in tqdm(_known(subsets, singles), desc="fuse", unit=" subsets", disable=None):
        stacked = np.stack([singles[name] for name in subset])
        conflict = float(np.mean(fusion.conflict(fusion.masses_for(task, stacked))))
        for rule in rules:
            shares = weights(subset) if weights and rule == "wa" else None
            fused = np.asarray(fusion.fuse(rule, stacked, task=task, weights=shares))
            row = score.row(joined(subset), rule, fused, conflict)
            table.append(row | {"weights": "" if shares is None else "+".join(f"{w:.3f}" for w in shares)})
    return [row | tested for row, tested in zip(table, score.tests(), strict=True)]


def every_subset(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the subsets of two models and more, smaller ones first."""
    sizes = range(2, len(names) + 1)
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def joined(subset: Sequence[str]) -> str:
    """Return a subset's name; a model with a plus in its own name, such as log_mel+wavegram, is bracketed."""
    return "+".join(f"({name})" if "+" in name else name for name in subset)


def headline(task: str, targets: np.ndarray, probs: np.ndarray) -> float:
    """Return the measure that the models of a task are compared by: accuracy, or mAP for tagging.

    Args:
      task: "classification" or "tagging".
      targets: (n, C) uint8.
      probs: (n, C).
    """
    return float(_measured(task, targets, probs)[HEADLINE[task]][0])


class _Scorer:
    """Scores probabilities of the same clips against the same targets, on the same bootstrap draws.

    Args:
      task: "classification" or "tagging".
      truth: (n, C) targets.
      draws: number of draws.
      best: (n, C) probabilities of the model that the others are tested against.
      groups: (n,) integers from 0, or None; see `compare`.
    """

    def __init__(self, task: str, truth: np.ndarray, draws: int, best: np.ndarray, groups: np.ndarray | None):
        self._task, self._truth, self._groups = task, truth, groups
        self._counts = significance.draw_counts(len(truth), draws, groups=groups) if draws else None
        self._units = len(truth) if groups is None else len(set(groups.tolist()))
        self._best = significance.right(truth, best)
        self._rights: list[np.ndarray] = []

    def row(self, models: str, rule: str, probs: np.ndarray, conflict: float) -> dict[str, Any]:
        """Return the scores of one more row of the table; `tests` adds those of all rows."""
        exact = _measured(self._task, self._truth, probs)
        drawn = None if self._counts is None else _measured(self._task, self._truth, probs, self._counts)
        row: dict[str, Any] = {"models": models, "rule": rule}
        for name in COLUMNS:
            row[name] = float(exact[name][0])
            ends = (np.nan, np.nan)
            if drawn is not None:
                ends = significance.interval(drawn[name], row[name], units=self._units, within=RANGES[name])
            row[f"{name}_low"], row[f"{name}_high"] = ends
        self._rights.append(significance.right(self._truth, probs))
        return row | {"conflict": conflict, **dict.fromkeys(self._tested), "weights": ""}

    def tests(self) -> list[dict[str, float]]:
        """Return what the test against the best single model gives for each row so far."""
        if self._groups is None:
            values = [[significance.mcnemar(right, self._best) for right in self._rights]]
        else:
            differences = np.stack(self._rights).astype(np.float64) - self._best
            values = [p.tolist() for p in significance.sign_flips(differences, self._groups)]
        return [dict(zip(self._tested, row, strict=True)) for row in zip(*values, strict=True)]

    @property
    def _tested(self) -> tuple[str, ...]:
        return ("p",) if self._groups is None else ("p", "p_corrected")


def _merit(task: str, targets: np.ndarray, probs: np.ndarray) -> float:
    """Return the headline, or -1 if it is undefined."""
    return float(np.nan_to_num(headline(task, targets, probs), nan=-1.0))


def _measured(
    task: str, targets: np.ndarray, probs: np.ndarray, counts: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the measures of bootstrap draws, (draws,) each; by default of one that has every clip once."""
    if counts is None:
        counts = np.ones((1, len(probs)))  # float64, which gives exactly the scores of `metrics`
    return significance.scores(targets, probs, counts, F1_THRESHOLD[task])


def _checked(
    probs: Mapping[str, Masses], targets: Masses, task: str, draws: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return each model's probabilities, and the targets, as arrays."""
    if not probs:
        raise ValueError("no models: give the probabilities of at least one")
    if draws < 0:
        raise ValueError(f"draws={draws}: give a number of draws, or 0 for no intervals")
    arrays = {name: _floating(np.asarray(given)) for name, given in probs.items()}
    truth = np.asarray(targets)
    for name, array in arrays.items():
        checked_for(task, array[None], model=name)
        truth = checked_targets(targets, array.shape, model=name)
    return arrays, truth


def _floating(array: np.ndarray) -> np.ndarray:
    """Return probabilities in at least float32; of votes in uint8 or bool, no negative could be ranked."""
    return array.astype(np.result_type(array, np.float32), copy=False)


def _numbered(groups: Sequence[Any] | np.ndarray | None, clips: int) -> np.ndarray | None:
    """Return the groups as integers from 0."""
    if groups is None:
        return None
    if np.shape(groups) != (clips,):
        raise ValueError(f"groups must be ({clips},), one of each clip, not {np.shape(groups)}")
    distinct, numbers = np.unique(groups, return_inverse=True)
    if len(distinct) < 2:
        raise ValueError("groups: all clips are in the same, so there is nothing to draw")
    return numbers


def _known(subsets: Sequence[Sequence[str]] | None, names: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Return the subsets to fuse, all of known models."""
    if subsets is None:
        return every_subset(list(names))
    for subset in subsets:
        if not subset or set(subset) - set(names) or len(set(subset)) < len(subset):
            raise ValueError(f"subset {subset!r}: name models, each once, from {', '.join(names)}")
    return subsets

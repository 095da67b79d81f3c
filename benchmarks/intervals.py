"""Count how often 95% bootstrap intervals contain the expected score, for simulated test sets.

    python -m benchmarks.intervals --json benchmarks/results/intervals.json

A test set has five classes, and groups of 15 clips that share part of their errors, as clips of one speaker
do. Its expected score is the mean over many such sets. `expanded` are the intervals of
`rann_jax.significance.interval`; `plain` are the same without the expansion for few groups.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from rann_jax import significance
from rann_jax.command_line.parser import Parser

CLASSES, CLIPS = 5, 15  # clips of each group
SIGNAL, SHARED = 1.2, 1.0  # of logits: what a true class adds, and the deviation of what a group shares
RANGES = {"accuracy": (0, 1), "mAP": (0, 1), "F1": (0, 1), "d_prime": (-np.inf, np.inf)}
MANY = 10**9  # groups, for which nothing is expanded


def simulated(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return targets (n, C) and probabilities (n, C) of a test set."""
    targets = np.eye(CLASSES, dtype=np.uint8)[rng.integers(0, CLASSES, groups * CLIPS)]
    shared = SHARED * rng.normal(size=(groups, CLASSES)).repeat(CLIPS, axis=0)
    likely = np.exp(rng.normal(size=targets.shape) + SIGNAL * targets + shared)
    return targets, (likely / likely.sum(axis=1, keepdims=True)).astype(np.float32)


def own(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the scores of a test set itself."""
    return {
        name: x[0]
        for name, x in significance.scores(targets, probabilities, np.ones((1, len(targets)))).items()
    }


def coverage(groups: int, sets: int, draws: int, expected_of: int, seed: int) -> list[dict[str, Any]]:
    """Return the shares of intervals that contain each expected score, plain and expanded."""
    rng = np.random.default_rng([seed, groups])
    many = [own(*simulated(rng, groups)) for _ in range(expected_of)]
    expected = {name: np.mean([scores[name] for scores in many]) for name in RANGES}
    found = {"plain": dict.fromkeys(RANGES, 0), "expanded": dict.fromkeys(RANGES, 0)}
    belongs = np.arange(groups).repeat(CLIPS)
    for number in range(sets):
        targets, probabilities = simulated(rng, groups)
        counts = significance.draw_counts(len(targets), draws, number, belongs)
        drawn, score = significance.scores(targets, probabilities, counts), own(targets, probabilities)
        for kind, units in {"plain": MANY, "expanded": groups}.items():
            for name, within in RANGES.items():
                low, high = significance.interval(drawn[name], score[name], units=units, within=within)
                found[kind][name] += low <= expected[name] <= high
    return [
        {"groups": groups, "intervals": kind} | {name: float(n / sets) for name, n in counted.items()}
        for kind, counted in found.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Simulate and print the shares."""
    parser = Parser("benchmarks.intervals", __doc__)
    parser.add_argument("--groups", type=int, nargs="+", default=[6, 12, 24], help="groups of a test set")
    parser.add_argument("--sets", type=int, default=400, help="test sets (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: %(default)s)")
    parser.add_argument("--expected-of", type=int, default=3000, help="sets whose mean is the expected score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    rows = []
    for groups in options.groups:
        rows += coverage(groups, options.sets, options.draws, options.expected_of, options.seed)
    heads = list(rows[0])
    cells = [[f"{row[head]:.3f}" if head in RANGES else str(row[head]) for head in heads] for row in rows]
    print(machine.markdown(heads, cells))
    if options.json:
        about = machine.about("benchmarks.intervals", arguments, ("numpy", "scipy"))
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

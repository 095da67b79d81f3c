"""Uncertainty of scores: bootstrap confidence intervals over clips, and McNemar's exact test of two models.

The bootstrap draws clips with replacement and scores every draw (Efron, 1979). A draw is a vector of how
often each clip was drawn, so all draws are scored at once by matrix products. Clips are treated as
independent: the intervals account neither for several clips by one speaker nor for the training seed.
"""

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from rann_jax import metrics
from rann_jax.errors import ConfigError

Array = np.ndarray


def check_draws(draws: int) -> None:
    """Raise ConfigError if --bootstrap asks for fewer than no draws."""
    if draws < 0:
        raise ConfigError(f"--bootstrap {draws}: give a number of draws, or 0 for no intervals")


def draw_counts(clips: int, draws: int, seed: int = 0) -> Array:
    """Return how often each clip is in each draw with replacement, (draws, clips) float32."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clips, np.full(clips, 1 / clips), size=draws).astype(np.float32)


def scores(targets: Array, probabilities: Array, counts: Array, threshold: float | None = None) -> dict:
    """Return accuracy, mAP, macro F1 and d' of every draw, as defined in `metrics`.

    Args:
      targets: (n, C) multi-hot.
      probabilities: (n, C).
      counts: (draws, n) how often each clip counts; float64 ones give the scores of the split itself.
      threshold: threshold of F1 for tagging; None predicts the most probable class.

    Returns:
      name -> (draws,). Classes without positives in a draw are left out of that draw's means.
    """
    best = probabilities.argmax(axis=1)
    clips = np.arange(len(targets))
    predicted = np.zeros(targets.shape, np.float32)
    if threshold is None:
        predicted[clips, best] = 1
    else:
        predicted[probabilities.astype(np.float64) > threshold] = 1  # compared as in `metrics`
    precision, area = _ranked(targets, probabilities, counts)
    positives = counts @ targets
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * (counts @ (targets * predicted)) / (positives + counts @ predicted)
        f1 = np.where(positives > 0, f1, np.nan)
    return {
        "accuracy": (counts @ targets[clips, best]).astype(np.float64) / counts.sum(axis=1),
        "mAP": _means(precision),
        "F1": _means(f1),
        "d_prime": metrics.d_prime(_means(area)),
    }


def interval(values: Array, score: float, level: float = 0.95) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of a score.

    The method is that of Efron & Tibshirani (1993), 14.3, without acceleration.

    Draws contain clips more than once, which raises their average precision above the split's and lowers F1,
    the more so the fewer clips a class has. Plain percentiles would shift the interval in the same direction.
    It must shift in the opposite direction, because the split's own score already has this bias.

    Draws whose score is undefined (NaN) are left out. An infinite score is defined: it is d' for an AUC of 1.
    An end between two draws is interpolated; if one of the two is infinite, the end is the nearer draw.

    Args:
      values: (draws,) scores of the draws.
      score: score of the split itself.
      level: confidence level, the share of such intervals that contain the true score.

    >>> interval(np.array([1.0] * 50 + [np.inf] * 50), np.inf)
    (1.0, inf)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    share = (np.mean(defined < score) + np.mean(defined <= score)) / 2  # equal ones count as half below
    ends = ndtr(2 * ndtri(share) + ndtri([(1 - level) / 2, (1 + level) / 2]))
    with np.errstate(invalid="ignore"):  # inf - inf
        between = np.quantile(defined, ends)
    nearest = np.quantile(defined, ends, method="nearest")
    low, high = np.where(np.isfinite(between), between, nearest)
    return float(low), float(high)


def mcnemar(first: Array, second: Array) -> float:
    """Return McNemar's exact two-sided p-value for the hypothesis that two models are equally good.

    Each argument (n,) says for the same clips whether the model is right.

    Under that hypothesis, the number of clips that only the first gets right is Binomial(k, 1/2), where k is
    the number of clips that exactly one of them gets right.

    >>> mcnemar(np.array([1, 1, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 0, 0]))
    0.0625
    """
    only_first = int(np.sum((first > 0) & (second == 0)))
    only_second = int(np.sum((second > 0) & (first == 0)))
    differing = only_first + only_second
    return float(min(1.0, 2 * binom.cdf(min(only_first, only_second), differing, 0.5)))


def right(targets: Array, probabilities: Array) -> Array:
    """Return (n,), 1 where the most probable class is a true one; its mean is the accuracy."""
    return targets[np.arange(len(targets)), probabilities.argmax(axis=1)]


def _ranked(targets: Array, probabilities: Array, counts: Array) -> tuple[Array, Array]:
    """Return weighted average precision and AUC (draws, C), with ties as in `metrics`."""
    shape = (len(counts), targets.shape[1])
    precision, area = np.full(shape, np.nan), np.full(shape, np.nan)
    for c in range(targets.shape[1]):
        positive = targets[:, c] > 0
        values, weights = probabilities[:, c], counts[:, positive]
        at_least = (values[:, None] >= values[positive]).astype(np.float32)  # (n, positives)
        equal = (values[:, None] == values[positive]).astype(np.float32)
        ranked = counts @ at_least
        true = weights @ at_least[positive]
        false = ranked - true
        ties = counts[:, ~positive] @ equal[~positive]
        total, negatives = weights.sum(axis=1), counts[:, ~positive].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision[:, c] = np.nansum(weights * true / ranked, axis=1) / total
            below = negatives[:, None] - false + 0.5 * ties
            area[:, c] = (weights * below).sum(axis=1) / (total * negatives)
        precision[total == 0, c] = np.nan
        area[(total == 0) | (negatives == 0), c] = np.nan
    return precision, area


def _means(per_class: Array) -> Array:
    return np.array([metrics.mean(row) for row in per_class])

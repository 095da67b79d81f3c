"""Uncertainty of scores: bootstrap confidence intervals over clips, and McNemar's exact test of two models.

The bootstrap draws clips with replacement and scores every draw (Efron, 1979). A draw is a vector of how
often each clip was drawn, so many draws are scored at once by matrix products. Clips are treated as
independent: the intervals account neither for several clips by one speaker nor for the training seed.
"""

import numpy as np
from scipy import sparse
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from rann_jax import metrics
from rann_jax.errors import ConfigError

Array = np.ndarray

# (ours) Counts that are scored at once. A class with many positives needs several arrays of this size.
BLOCK = 1 << 22


def check_draws(draws: int) -> None:
    """Raise ConfigError if --bootstrap asks for fewer than no draws."""
    if draws < 0:
        raise ConfigError(f"--bootstrap {draws}: give a number of draws, or 0 for no intervals")


def draw_counts(clips: int, draws: int, seed: int = 0) -> Array:
    """Return how often each clip is in each draw with replacement, (draws, clips) uint8.

    A byte is enough: a clip is drawn more than 255 times with a probability below 1 / 256!.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((draws, clips), np.uint8)
    for draw in counts:  # all draws at once would take eight bytes a count
        draw[:] = rng.multinomial(clips, np.full(clips, 1 / clips))
    return counts


def scores(targets: Array, probabilities: Array, counts: Array, threshold: float | None = None) -> dict:
    """Return accuracy, mAP, macro F1 and d' of every draw, as defined in `metrics`.

    Args:
      targets: (n, C) multi-hot.
      probabilities: (n, C).
      counts: (draws, n) how often each clip counts. float64 counts of 1 each reproduce the split's own
        scores to the last digit; counts of other dtypes are computed in float32.
      threshold: threshold of F1 for tagging; None predicts the most probable class.

    Returns:
      name -> (draws,). Classes without positives in a draw are left out of that draw's means.
    """
    best = probabilities.argmax(axis=1)
    clips = np.arange(len(targets))
    predicted = np.zeros(targets.shape, np.uint8)
    if threshold is None:
        predicted[clips, best] = 1
    else:
        predicted[probabilities > np.float64(threshold)] = 1  # compared in float64, as in `metrics`
    right = targets[clips, best].astype(np.float32)
    marks = (targets, predicted, targets * predicted)
    marked = [sparse.csr_array(each.T, dtype=np.float32) for each in marks]
    rows = max(1, BLOCK // len(clips))
    blocks = []
    for begin in range(0, len(counts), rows):
        block = counts[begin : begin + rows].T
        block = np.ascontiguousarray(block, np.result_type(block, np.float32))
        precision, area = _ranked(targets, probabilities, block)
        positives, guesses, hits = (each @ block for each in marked)
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = np.where(positives > 0, 2 * hits / (positives + guesses), np.nan)
        accuracy = (right @ block).astype(np.float64) / block.sum(axis=0)
        blocks.append((accuracy, _means(precision), _means(f1), metrics.d_prime(_means(area))))
    joined = map(np.concatenate, zip(*blocks, strict=True))
    return dict(zip(("accuracy", "mAP", "F1", "d_prime"), joined, strict=True))


def interval(
    values: Array, score: float, level: float = 0.95, within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of a score, or a wider one if few draws are on one side.

    The method is that of Efron & Tibshirani (1993), 14.3, without acceleration.

    Draws contain clips more than once, which raises their average precision above the split's and lowers F1,
    the more so the fewer clips a class has. Plain percentiles would shift the interval in the same direction.
    It must shift in the opposite direction, because the split's own score already has this bias.

    With many classes of few clips, most draws are on one side of the score, and a corrected percentile is
    where less than one draw is expected (with 1000 draws, if under 29% are on the other side). Then the
    interval (ours) assumes only that the bias is between none and that of the draws. It spans the basic
    bootstrap interval (Davison & Hinkley, 1997, 5.2: the draws' percentiles mirrored at the score) and an
    interval of the same width around the score.

    Draws whose score is undefined (NaN) are left out. An infinite score is defined: it is d' for an AUC of 1.
    An end between two draws is interpolated; if one of the two is infinite, the end is the nearer draw.

    Args:
      values: (draws,) scores of the draws.
      score: score of the split itself.
      level: confidence level, the share of such intervals that contain the true score.
      within: least and greatest value that a score can have, which a wider interval might exceed.

    >>> interval(np.array([1.0] * 50 + [np.inf] * 50), np.inf)
    (1.0, inf)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    share = (np.mean(defined < score) + np.mean(defined <= score)) / 2  # equal ones count as half below
    tails = [(1 - level) / 2, (1 + level) / 2]
    ends = ndtr(2 * ndtri(share) + ndtri(tails))
    if min(ends[0], 1 - ends[1]) * len(defined) < 1:
        wide = _half_corrected(np.quantile(defined, tails, method="nearest"), score)
        if np.isfinite(wide).all():
            low, high = np.clip(wide, *within)
            return float(low), float(high)
    with np.errstate(invalid="ignore"):  # inf - inf
        between = np.quantile(defined, ends)
    nearest = np.quantile(defined, ends, method="nearest")
    low, high = np.where(np.isfinite(between), between, nearest)
    return float(low), float(high)


def _half_corrected(percentiles: Array, score: float) -> tuple[float, float]:
    """Return the ends for a bias between none and that of the draws; see `interval`."""
    low, high = percentiles
    with np.errstate(invalid="ignore"):  # inf - inf
        half = (high - low) / 2
        return min(2 * score - high, score - half), max(2 * score - low, score + half)


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
    """Return weighted average precision and AUC (C, draws) for counts (n, draws), with ties as in `metrics`.

    The thresholds of a class are the distinct probabilities of its positives. A clip counts from the first
    threshold that it reaches on, so what is ranked at each threshold is a cumulative sum.
    """
    precision = np.full((targets.shape[1], counts.shape[1]), np.nan)
    area = precision.copy()
    for c in range(targets.shape[1]):
        positive, descending = targets[:, c] > 0, -probabilities[:, c]
        if not positive.any():
            continue
        thresholds = np.unique(descending[positive])
        first = np.searchsorted(thresholds, descending)  # one past the last for clips that reach none
        tied = thresholds[np.minimum(first, len(thresholds) - 1)] == descending
        kind = np.where(positive, 0, np.where(tied, 1, 2))
        sums = _grouped(kind * (len(thresholds) + 1) + first, 3 * (len(thresholds) + 1), counts)
        weights, ties, others = np.split(sums, 3)
        negatives = ties.sum(axis=0) + others.sum(axis=0)
        weights, ties, others = weights[:-1], ties[:-1], others[:-1]
        true, false = weights.cumsum(axis=0), (ties + others).cumsum(axis=0)
        total = true[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = weights * true / np.maximum(true + false, 1)  # where nothing is ranked, the weight is 0
            precision[c] = gain.sum(axis=0, dtype=np.float64) / total
            below = weights * (negatives - false + 0.5 * ties)
            area[c] = below.sum(axis=0, dtype=np.float64) / (total * negatives)
    return precision, area


def _grouped(groups: Array, number: int, counts: Array) -> Array:
    """Return the counts (n, draws) summed over the clips of each group, (number, draws)."""
    clips = np.arange(len(groups) + 1)
    ones = np.ones(len(groups), counts.dtype)
    return sparse.csc_array((ones, groups, clips), shape=(number, len(groups))) @ counts


def _means(per_class: Array) -> Array:
    return np.array([metrics.mean(draw) for draw in per_class.T])

"""Uncertainty of scores: bootstrap confidence intervals, and tests of whether one model beats another.

The bootstrap draws clips with replacement and scores every draw (Efron, 1979). A draw is a vector of how
often each clip was drawn, so many draws are scored at once by matrix products.

Clips of one speaker, or cut from one recording, are alike, so they say less than as many independent clips.
Where `groups` says which clips belong together, whole groups are drawn (the cluster bootstrap; Davison &
Hinkley, 1997, 3.8), and models are compared by the signs of the groups' differences instead of by McNemar's
test, which takes clips as independent. Intervals allow for few groups; still, six speakers say only so much
about others. Nothing here accounts for the training seed.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import binom

from rann_jax import metrics
from rann_jax.errors import ConfigError

Array = np.ndarray

GROUPS_HELP = (
    "regular expression that finds in a clip's id the speaker or recording of which the clip is a part; "
    "intervals and p then draw and compare whole groups of clips"
)

# (ours) Draws are scored in float32. Of few groups, some draws have each of them once: the split's own score.
ROUNDING = 1e-6

# (ours) Counts that are scored at once. A class with many positives needs several arrays of this size.
BLOCK = 1 << 22


def check_draws(draws: int) -> None:
    """Raise ConfigError if --bootstrap asks for fewer than no draws."""
    if draws < 0:
        raise ConfigError(f"--bootstrap {draws}: give a number of draws, or 0 for no intervals")


def groups_of(ids: Sequence[str] | Array, pattern: str) -> Array:
    """Return the group of each clip, (n,) integers from 0: what a regular expression finds in its id.

    Args:
      ids: (n,) ids of the clips.
      pattern: regular expression, searched for in each id. The group is what its first parentheses hold, or
        without parentheses all that it matches.

    Raises:
      ConfigError: the pattern is not a regular expression, an id does not contain it, or all are alike.

    >>> groups_of(["03-01-actor1", "04-02-actor1", "03-01-actor2"], "actor([0-9]+)")
    array([0, 0, 1])
    """
    try:
        found = [re.search(pattern, str(name)) for name in ids]
    except re.error as error:
        raise ConfigError(f"--groups {pattern}: not a regular expression: {error}") from None
    if None in found:
        raise ConfigError(f"--groups {pattern}: not found in the clip id {ids[found.index(None)]}")
    names = [each[1 if each.re.groups else 0] or "" for each in found if each]
    distinct, groups = np.unique(names, return_inverse=True)
    if len(distinct) < 2:
        raise ConfigError(f"--groups {pattern}: finds the same in every clip id: {str(distinct[0])!r}")
    return groups


def draw_counts(clips: int, draws: int, seed: int = 0, groups: Array | None = None) -> Array:
    """Return how often each clip is in each draw with replacement, (draws, clips) uint8.

    A byte is enough: a clip is drawn more than 255 times with a probability below 1 / 256!.

    Args:
      clips: number of clips n.
      draws: number of draws.
      seed: seed of the draws.
      groups: (n,) integers from 0: as many groups as there are are drawn, each with all of its clips, so
        draws differ in their number of clips unless groups are of equal size. None draws single clips.
    """
    rng = np.random.default_rng(seed)
    units = clips if groups is None else int(groups.max()) + 1
    counts = np.empty((draws, clips), np.uint8)
    for draw in counts:  # all draws at once would take eight bytes a count
        drawn = rng.multinomial(units, np.full(units, 1 / units))
        draw[:] = drawn if groups is None else drawn[groups]
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
    values: Array,
    score: float,
    level: float = 0.95,
    *,
    units: int,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of a score, or a wider one if few draws are on one side.

    The method is that of Efron & Tibshirani (1993), 14.3, without acceleration, but with the percentiles
    that Hesterberg expands ("What Teachers Should Know About the Bootstrap", The American Statistician 69,
    2015, 3.2): draws of few units vary too little; so the interval of a mean of normal values is Student's.

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
      units: number of clips, or of groups if these were drawn.
      within: least and greatest value that a score can have, which a wider interval might exceed.

    >>> interval(np.array([1.0] * 50 + [np.inf] * 50), np.inf, units=20)
    (1.0, inf)
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    near = ROUNDING * max(1.0, abs(score))
    below = np.mean(defined < score - near), np.mean(defined <= score + near)
    share = sum(below) / 2  # equal ones count as half below
    far = _quantile(level, units)
    tails = ndtr([-far, far])
    ends = ndtr(2 * ndtri(share) + [-far, far])
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


def _quantile(level: float, units: int) -> float:
    """Return how far the ends of an interval are from a score, in standard deviations of the draws."""
    if units < 2:  # nothing is known of the spread
        return float(ndtri((1 + level) / 2))
    return float(stdtrit(units - 1, (1 + level) / 2)) * math.sqrt(units / (units - 1))


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


def sign_flips(differences: Array, groups: Array, flips: int = 10_000, seed: int = 0) -> tuple[Array, Array]:
    """Return p-values of models against one other model, and the same corrected for the number of models.

    If two models are equally good, the difference between them is as likely to have the opposite sign in each
    group of clips. So the signs of whole groups are flipped at random, and p is the share of flips whose
    difference is at least as far from zero, two-sided, the observed one included. Corrected, it is the share
    in which any model's difference is, in units of its standard error (Westfall & Young, 1993, single-step
    maxT): the chance that the best of so many would look as good by chance alone.

    Args:
      differences: (models, n), on each clip the result of a model minus that of the other.
      groups: (n,) integers from 0, the group of each clip.
      flips: number of random flips; the least possible p is 1 / (flips + 1).
      seed: seed of the flips.

    Returns:
      p and corrected p, (models,) each. 1 for a model without any difference.
    """
    number = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, row, number) for row in np.asarray(differences, np.float64)])
    observed = np.abs(_student(sums, np.ones((1, number))))[0]
    reached = observed * (1 - 1e-9)  # equal ones count, whatever their rounding
    rng = np.random.default_rng(seed)
    exceed, exceed_any = np.zeros((2, len(sums)), int)
    rows = max(1, BLOCK // max(sums.shape))  # flips at once
    for begin in range(0, flips, rows):
        signs = rng.integers(0, 2, (min(rows, flips - begin), number)) * 2.0 - 1
        flipped = np.abs(_student(sums, signs))
        exceed += (flipped >= reached).sum(axis=0)
        exceed_any += (flipped.max(axis=1, keepdims=True) >= reached).sum(axis=0)
    return (1 + exceed) / (1 + flips), (1 + exceed_any) / (1 + flips)


def _student(sums: Array, signs: Array) -> Array:
    """Return Student's t of the groups' sums (models, groups) under each vector of signs, (flips, models).

    Under flips it grows with the size of the mean, because the squares do not change.
    """
    number = sums.shape[1]
    means = (signs @ sums.T) / number
    squares = np.square(sums).mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(squares - means**2, 0) / (number - 1))
        return np.where(means == 0, 0.0, means / spread)


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

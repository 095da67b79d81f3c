"""Metrics over a whole split, in numpy float64; they equal scikit-learn's.

Arguments are `targets` (N, C), multi-hot or one-hot, and `scores` (N, C), where greater means more likely.
A class without positives has no average precision, AUC or F1; a class without negatives has no AUC. Its
per-class value is NaN and is left out of the mean. `undefined_classes` lists the classes without positives.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

Array = np.ndarray


def average_precision(targets: ArrayLike, scores: ArrayLike) -> Array:
    """Return each class's average precision: the sum over thresholds of precision times the gain in recall.

    Returns:
      (C,), NaN for a class without positives. The mAP is `mean(average_precision(...))`.

    Raises:
      ValueError: shapes differ or are not (N, C), or a score is not finite.

    >>> average_precision([[1], [0], [1]], [[0.9], [0.8], [0.7]]).round(4)
    array([0.8333])
    """
    true, false, distinct = _cumulative_counts(targets, scores)
    positives = true[-1]
    with np.errstate(invalid="ignore"):
        precision = true / (true + false)
        recall = true / np.where(positives > 0, positives, np.nan)
    # Equal scores share one threshold: only the last of each run of equals counts.
    return np.array(
        [
            np.sum(p[d] * np.diff(r[d], prepend=0.0))
            for p, r, d in zip(precision.T, recall.T, distinct.T, strict=True)
        ]
    )


def roc_auc(targets: ArrayLike, scores: ArrayLike) -> Array:
    """Return the area under the ROC curve of each class; ties count one half.

    Returns:
      (C,), NaN for a class without positives or without negatives.

    Raises:
      ValueError: shapes differ or are not (N, C), or a score is not finite.
    """
    true, false, distinct = _cumulative_counts(targets, scores)
    areas = np.full(true.shape[1], np.nan)
    for c, (t, f, d) in enumerate(zip(true.T, false.T, distinct.T, strict=True)):
        if t[-1] > 0 and f[-1] > 0:
            areas[c] = np.trapezoid(np.r_[0, t[d]] / t[-1], np.r_[0, f[d]] / f[-1])
    return areas


def d_prime(auc: ArrayLike) -> Array:
    """Return the sensitivity index: sqrt(2) times the standard normal quantile of the AUC.

    >>> float(d_prime(0.975).round(3))
    2.772
    """
    return np.sqrt(2.0) * ndtri(auc)


def accuracy(targets: ArrayLike, scores: ArrayLike) -> float:
    """Return the share of examples whose greatest score is at a true class.

    Raises:
      ValueError: shapes differ or are not (N, C), or a score is not finite.
    """
    targets, scores = _checked(targets, scores)
    best = scores.argmax(axis=1)
    return float(targets[np.arange(len(targets)), best].mean())


def f1(targets: ArrayLike, scores: ArrayLike, threshold: float | None = None) -> Array:
    """Return the F1 of each class. Predicted is the greatest score, or every score above a threshold.

    Returns:
      (C,), NaN for a class without positives. `macro_f1` is the mean.

    Raises:
      ValueError: shapes differ or are not (N, C), or a score is not finite.
    """
    targets, scores = _checked(targets, scores)
    if threshold is None:
        predicted = np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
    else:
        predicted = scores > threshold
    hits = (targets * predicted).sum(axis=0)
    positives = targets.sum(axis=0)
    with np.errstate(invalid="ignore"):
        values = 2 * hits / (positives + predicted.sum(axis=0))
    return np.where(positives > 0, values, np.nan)


def macro_f1(targets: ArrayLike, scores: ArrayLike, threshold: float | None = None) -> float:
    """Return the mean F1 of the classes that have positives; arguments as in `f1`."""
    return mean(f1(targets, scores, threshold))


def lwlrap(targets: ArrayLike, scores: ArrayLike) -> float:
    """Return the label-weighted label-ranking average precision (DCASE 2019 task 2).

    The precision of a true label is the share of true labels among the example's labels that score at least
    as high. The result is its mean over the true labels of all examples; NaN if there are none.

    Raises:
      ValueError: shapes differ or are not (N, C), or a score is not finite.

    >>> lwlrap([[1, 0, 1], [0, 1, 0]], [[0.9, 0.5, 0.1], [0.6, 0.2, 0.4]])  # (1 + 2/3 + 1/3) / 3
    0.6666666666666666
    """
    targets, scores = _checked(targets, scores)
    labels = targets.sum(axis=1)
    if not labels.any():
        return float("nan")
    # With the axes exchanged, examples take the place of classes: average precision over the labels of each.
    by_example = np.nan_to_num(average_precision(targets.T, scores.T))
    return float(np.average(by_example, weights=labels))


def mean(per_class: ArrayLike) -> float:
    """Return the mean over the classes whose value is not NaN; NaN if there are none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return float(np.nanmean(np.asarray(per_class, np.float64)))


def undefined_classes(targets: ArrayLike) -> Array:
    """Return the indices of the classes without positives, which every mean leaves out."""
    return np.flatnonzero(np.asarray(targets).sum(axis=0) == 0)


def _cumulative_counts(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array, Array]:
    """Return true and false positives (N, C) by descending score, and where a threshold lies."""
    targets, scores = _checked(targets, scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    true = np.cumsum(np.take_along_axis(targets, order, axis=0), axis=0)
    false = np.arange(1, len(scores) + 1)[:, None] - true
    distinct = np.concatenate([ranked[:-1] != ranked[1:], np.ones((1, scores.shape[1]), bool)])
    return true, false, distinct


def _checked(targets: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    targets, scores = np.asarray(targets, np.float64), np.asarray(scores, np.float64)
    if targets.ndim != 2 or targets.shape != scores.shape or 0 in targets.shape:
        shapes = f"{targets.shape} and {scores.shape}"
        mend = ": give class indices y as one-hot, np.eye(C)[y]" if targets.ndim < scores.ndim else ""
        raise ValueError(f"targets and scores must both be (N, C) and not empty, not {shapes}{mend}")
    if not np.isin(targets, (0.0, 1.0)).all():
        raise ValueError("targets must be 0 or 1")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return targets, scores

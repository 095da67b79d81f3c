"""Metrics equal scikit-learn's to 1e-9, including ties and missing classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sk

from rann_jax import metrics


@st.composite
def multi_label(draw):
    """Draw targets and scores with many ties, classes without positives and classes without negatives."""
    n, classes = draw(st.integers(2, 30)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10**6]))
    targets = rng.random((n, classes)) < rng.random(classes)
    return targets.astype(np.int64), rng.integers(0, levels, (n, classes)) / levels


@given(multi_label())
def test_average_precision(data):
    targets, scores = data
    for c, value in enumerate(metrics.average_precision(targets, scores)):
        if targets[:, c].any():
            assert abs(value - sk.average_precision_score(targets[:, c], scores[:, c])) < 1e-9
        else:
            assert np.isnan(value)


@given(multi_label())
def test_roc_auc(data):
    targets, scores = data
    for c, value in enumerate(metrics.roc_auc(targets, scores)):
        if 0 < targets[:, c].sum() < len(targets):
            assert abs(value - sk.roc_auc_score(targets[:, c], scores[:, c])) < 1e-9
        else:
            assert np.isnan(value)


@given(multi_label())
def test_lwlrap(data):
    """With an example's number of labels as its weight, scikit-learn's measure is label-weighted too."""
    targets, scores = data
    labels = targets.sum(axis=1)
    if labels.any():
        expected = sk.label_ranking_average_precision_score(targets, scores, sample_weight=labels)
        assert abs(metrics.lwlrap(targets, scores) - expected) < 1e-9
    else:
        assert np.isnan(metrics.lwlrap(targets, scores))


@pytest.mark.fast
def test_lwlrap_by_hand():
    """The true labels rank 1 and 3 in the first clip (1/1, 2/3), 2 in the second (1/2), none in the third.

    In the fourth, a tie with a wrong label ranks second (1/2).
    """
    targets = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
    scores = [[0.9, 0.5, 0.1], [0.6, 0.4, 0.2], [0.3, 0.2, 0.1], [0.7, 0.7, 0.1]]
    assert metrics.lwlrap(targets, scores) == pytest.approx((1 + 2 / 3 + 1 / 2 + 1 / 2) / 4, abs=1e-12)


@given(multi_label(), st.sampled_from([0.3, 0.5]))
def test_macro_f1_of_tagging(data, threshold):
    targets, scores = data
    present = np.flatnonzero(targets.any(axis=0))
    if len(present):
        expected = [sk.f1_score(targets[:, c], scores[:, c] > threshold) for c in present]
        assert abs(metrics.macro_f1(targets, scores, threshold) - np.mean(expected)) < 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_accuracy_and_macro_f1_of_classification(seed, classes):
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, classes, 20), rng.random((20, classes))
    targets, guess = np.eye(classes)[truth], scores.argmax(1)
    assert abs(metrics.accuracy(targets, scores) - sk.accuracy_score(truth, guess)) < 1e-9
    expected = sk.f1_score(truth, guess, labels=np.unique(truth), average="macro", zero_division=0)
    assert abs(metrics.macro_f1(targets, scores) - expected) < 1e-9


@pytest.mark.fast
def test_means_leave_out_and_report_classes_without_positives():
    targets = np.array([[1, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.3]])
    assert metrics.undefined_classes(targets).tolist() == [2]
    assert metrics.mean(metrics.average_precision(targets, scores)) == 1.0
    assert metrics.mean(metrics.roc_auc(targets, scores)) == 1.0
    assert metrics.macro_f1(targets, scores) == 1.0
    assert np.isnan(metrics.mean(metrics.average_precision(targets * 0, scores)))


@pytest.mark.fast
def test_d_prime_inverts_the_normal_distribution():
    d = metrics.d_prime(np.array([0.5, 0.975]))
    np.testing.assert_allclose(norm.cdf(d / np.sqrt(2)), [0.5, 0.975], rtol=1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.macro_f1, metrics.roc_auc])
def test_scores_that_are_not_finite_are_refused_by_every_metric(metric):
    with pytest.raises(ValueError, match="finite"):
        metric(np.ones((2, 1)), np.array([[0.1], [np.nan]]))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("targets", "scores", "says"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), r"both be \(N, C\)"),
        (np.zeros(3), np.zeros(3), r"both be \(N, C\)"),
        (
            np.arange(2),
            np.zeros((2, 3)),
            r"\(2, 3\): give class indices y as one-hot, np\.eye\(C\)\[y\]",
        ),
        (np.zeros((0, 3)), np.zeros((0, 3)), "not empty"),
        (np.full((2, 1), 0.5), np.zeros((2, 1)), "0 or 1"),
        (np.ones((2, 1)), np.array([[0.1], [np.nan]]), "finite"),
    ],
)
def test_malformed_input_is_refused(targets, scores, says):
    with pytest.raises(ValueError, match=says):
        metrics.average_precision(targets, scores)

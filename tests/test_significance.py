"""Bootstrap scores equal scikit-learn's on the clips drawn; tests of two models equal SciPy's."""

import re
import tracemalloc

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest, permutation_test, t
from sklearn import metrics as sk

from rann_jax import metrics, significance
from rann_jax.errors import ConfigError

pytestmark = pytest.mark.fast

MANY = 10**9  # units, of which draws vary as much as what they stand for


@pytest.fixture(scope="module")
def split():
    """Targets and scores of sixty clips in four classes, with many ties."""
    rng = np.random.default_rng(0)
    targets = np.eye(4)[rng.integers(0, 4, 60)]
    scores = rng.integers(1, 9, (60, 4)) + 4 * targets * rng.random((60, 1))
    return targets, np.round(scores / scores.sum(1, keepdims=True), 2)


def test_draws_are_scored_like_the_clips_they_contain(split):
    targets, scores = split
    counts = significance.draw_counts(60, 20)
    assert (counts.sum(1) == 60).all()
    drawn = significance.scores(targets, scores, counts)
    for row, count in enumerate(counts.astype(int)):
        chosen = np.repeat(np.arange(60), count)
        t, s = targets[chosen], scores[chosen]
        truth, guess = t.argmax(1), s.argmax(1)
        expected = {
            "accuracy": sk.accuracy_score(truth, guess),
            "mAP": sk.average_precision_score(t, s, average="macro"),
            "F1": sk.f1_score(truth, guess, average="macro"),
            "d_prime": metrics.d_prime(sk.roc_auc_score(t, s, average="macro")),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(drawn[name][row], value, rtol=1e-5, err_msg=name)


def test_the_draws_of_a_seed_stay_the_same():
    """Published intervals depend on them."""
    expected = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=5)
    np.testing.assert_array_equal(significance.draw_counts(60, 5, seed=3), expected)


def test_blocks_of_draws_give_what_all_at_once_give(split, monkeypatch):
    targets, scores = split
    counts = significance.draw_counts(60, 20)
    whole = significance.scores(targets, scores, counts)
    monkeypatch.setattr(significance, "BLOCK", 7 * 60 + 1)  # seven draws at a time
    for name, values in significance.scores(targets, scores, counts).items():
        np.testing.assert_array_equal(values, whole[name])


def test_draws_of_many_clips_fit_in_memory():
    """Arrays of clips times positives would take 800 MB here, and counts of several bytes 40 MB or more."""
    rng = np.random.default_rng(0)
    targets = np.eye(2, dtype=np.uint8)[rng.integers(0, 2, 20_000)]
    scores = rng.random((20_000, 2), np.float32)
    tracemalloc.start()
    try:
        counts = significance.draw_counts(20_000, 1000)
        drawn = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        significance.scores(targets, scores, counts[:20])
        scored = tracemalloc.get_traced_memory()[1] - counts.nbytes
    finally:
        tracemalloc.stop()
    assert drawn < 40e6
    assert scored < 100e6


def test_a_class_missing_from_a_draw_is_left_out(split):
    targets, scores = split
    counts = np.ones((1, 60), np.float32)
    counts[:, targets[:, 2] == 1] = 0
    kept = counts[0] == 1
    drawn = significance.scores(targets, scores, counts)
    present = [0, 1, 3]
    expected = sk.average_precision_score(targets[kept][:, present], scores[kept][:, present])
    np.testing.assert_allclose(drawn["mAP"], expected, rtol=1e-6)


def test_f1_of_tagging(split):
    targets, scores = split
    drawn = significance.scores(targets, scores, np.ones((1, 60), np.float32), threshold=0.3)
    expected = sk.f1_score(targets, scores > 0.3, average="macro")
    np.testing.assert_allclose(drawn["F1"], expected, rtol=1e-6)


def test_a_probability_just_above_the_threshold_counts():
    """float32's 0.1 is 0.100000001490116, above 0.1."""
    targets = np.eye(2)
    probabilities = np.float32([[0.1, 0.0], [0.1, 0.3]])
    drawn = significance.scores(targets, probabilities, np.ones((1, 2), np.float32), threshold=0.1)
    expected = sk.f1_score(targets, [[1, 0], [1, 1]], average="macro")
    np.testing.assert_allclose(drawn["F1"], expected, rtol=1e-6)
    assert metrics.macro_f1(targets, probabilities, threshold=0.1) == pytest.approx(expected)


def test_interval_has_the_width_of_the_standard_error():
    """Accuracy 0.8 on 200 clips has the standard error sqrt(.8 * .2 / 200)."""
    targets = np.eye(2)[np.zeros(200, int)]
    scores = np.where(np.arange(200)[:, None] < 160, [[0.9, 0.1]], [[0.1, 0.9]])
    drawn = significance.scores(targets, scores, significance.draw_counts(200, 2000))
    low, high = significance.interval(drawn["accuracy"], 0.8, units=MANY)
    assert abs((high - low) - 2 * 1.96 * np.sqrt(0.8 * 0.2 / 200)) < 0.01
    assert np.isnan(significance.interval(np.array([np.nan]), np.nan, units=MANY)).all()


def test_an_interval_corrects_the_bias_of_the_draws():
    """Normal draws with mean score + 0.5 and deviation 1: the score is 0.5 above what it estimates, too."""
    draws = 10.5 + ndtri((np.arange(20_000) + 0.5) / 20_000)
    assert significance.interval(draws, 10, units=MANY) == pytest.approx((9.5 - 1.96, 9.5 + 1.96), abs=0.01)
    assert significance.interval(np.full(9, 1.0), 1.0, units=MANY) == (1, 1)


@pytest.mark.parametrize("units", [4, 6, 24, 400])
def test_the_interval_of_a_mean_of_normal_values_is_students(units):
    """Draws of a mean vary by its standard error, but for the n instead of n - 1 in the deviation."""
    error = 0.3
    draws = 5 + error * np.sqrt((units - 1) / units) * ndtri((np.arange(100_000) + 0.5) / 100_000)
    for level in (0.5, 0.9):
        expected = t.interval(level, units - 1, loc=5, scale=error)
        assert significance.interval(draws, 5, level, units=units) == pytest.approx(expected, abs=0.01)


def test_an_interval_where_the_draws_are_far_from_the_score():
    """Normal draws with mean score + 2 and deviation 1: 2% are below the score, too few to correct by."""
    draws = 12 + ndtri((np.arange(20_000) + 0.5) / 20_000)
    assert significance.interval(draws, 10, units=MANY) == pytest.approx((8 - 1.96, 10 + 1.96), abs=0.01)
    assert significance.interval(20 - draws, 10, units=MANY) == pytest.approx(
        (10 - 1.96, 12 + 1.96), abs=0.01
    )
    assert significance.interval(draws + 5, 10, units=MANY) == pytest.approx(
        (3 - 1.96, 10 + 1.96), abs=0.01
    )  # none is
    assert significance.interval(draws, 10, units=MANY, within=(7, 11)) == (7, 11)


def test_intervals_of_many_classes_with_few_clips():
    """Nearly every draw has a greater average precision than the split, and a smaller F1."""
    rng = np.random.default_rng(0)
    targets = np.eye(264, dtype=np.uint8)[np.arange(4 * 264) % 264]
    scores = rng.random(targets.shape, np.float32) + targets * rng.random((len(targets), 1), np.float32)
    counts = significance.draw_counts(len(targets), 200)
    exact = significance.scores(targets, scores, np.ones((1, len(targets))))
    for name, draws in significance.scores(targets, scores, counts).items():
        low, high = significance.interval(draws, exact[name][0], units=MANY)
        least, most = np.quantile(draws, [0.025, 0.975])
        assert low < exact[name][0] < high, name
        assert high - low > 0.95 * (most - least), name


def test_draws_that_equal_the_score_up_to_rounding_count_as_equal():
    draws = np.r_[np.full(40, 0.2), np.full(20, 0.5), np.full(40, 0.7)]
    exact = significance.interval(draws, 0.5, units=MANY)
    for rounding in (-1e-7, 1e-7):
        rounded = np.where(draws == 0.5, 0.5 + rounding, draws)
        assert significance.interval(rounded, 0.5, units=MANY) == pytest.approx(exact, abs=1e-6)


def test_an_infinite_score_has_an_interval():
    """An AUC of 1 has an infinite d'.

    If the score is the median of n sorted draws, the ends are at .025 (n - 1) and .975 (n - 1).
    """
    assert significance.interval(np.r_[np.ones(50), np.full(50, np.inf)], np.inf, units=MANY) == (1, np.inf)
    assert significance.interval(np.full(50, np.inf), np.inf, units=MANY) == (np.inf, np.inf)
    draws = np.r_[np.arange(100.0), np.inf, np.nan]  # ends at 2.5 and 97.5
    assert significance.interval(draws, 50, units=MANY) == pytest.approx((2.5, 97.5))
    draws = np.r_[-np.inf, 1:4, np.inf]  # ends at 0.1 and 3.9: the nearer draws are infinite
    assert significance.interval(draws, 2, units=MANY) == (-np.inf, np.inf)
    draws = np.array([1, 2, np.inf])  # ends at 0.8 and 1.2: the nearer draws are finite
    assert significance.interval(draws, 2, level=0.2, units=MANY) == pytest.approx((1.8, 2))


@pytest.mark.parametrize(("only_first", "only_second"), [(9, 1), (0, 6), (5, 5), (0, 0), (40, 22)])
def test_mcnemar(only_first, only_second):
    first = np.r_[np.ones(only_first), np.zeros(only_second), np.ones(7), np.zeros(3)]
    second = np.r_[np.zeros(only_first), np.ones(only_second), np.ones(7), np.zeros(3)]
    n = only_first + only_second
    expected = binomtest(only_first, n, 0.5).pvalue if n else 1.0
    np.testing.assert_allclose(significance.mcnemar(first, second), expected, rtol=1e-9)


def test_the_groups_of_clips():
    ids = ["5-100-A", "3-200-A", "5-200-B"]
    np.testing.assert_array_equal(significance.groups_of(ids, "-([0-9]+)-"), [0, 1, 1])
    np.testing.assert_array_equal(significance.groups_of(ids, "[AB]$"), [0, 0, 1])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("-(", "not a regular expression"),
        ("x", "not found in the clip id a-1"),
        ("-", "finds the same in every clip id: '-'"),
    ],
)
def test_groups_that_cannot_be_told(pattern, said):
    with pytest.raises(ConfigError, match=re.escape(f"--groups {pattern}: {said}")):
        significance.groups_of(["a-1", "b-2"], pattern)


def test_draws_of_groups_contain_whole_groups():
    groups = np.array([0, 1, 0, 2, 1, 0])
    counts = significance.draw_counts(6, 50, groups=groups)
    of_group = counts[:, [0, 1, 3]]
    np.testing.assert_array_equal(counts, of_group[:, groups])
    np.testing.assert_array_equal(of_group.sum(axis=1), 3)


def test_an_interval_by_groups_has_the_width_of_as_many_independent_clips():
    """If the eight clips of a group are always right or wrong together, 50 groups say as much as 50 clips."""
    hits = np.repeat(np.arange(50) < 40, 8)
    targets = np.eye(2)[np.zeros(400, int)]
    scores = np.where(hits[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    counts = significance.draw_counts(400, 2000, groups=np.repeat(np.arange(50), 8))
    low, high = significance.interval(
        significance.scores(targets, scores, counts)["accuracy"], 0.8, units=MANY
    )
    assert abs((high - low) - 2 * 1.96 * np.sqrt(0.8 * 0.2 / 50)) < 0.02


def test_sign_flips_against_scipy():
    """SciPy flips signs by exchanging paired samples; with ten groups it tries all 1024 ways."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 7)
    differences = rng.integers(-1, 2, (3, 70)) + (rng.random((3, 70)) < [[0.0], [0.2], [0.4]])
    sums = [np.bincount(groups, row) for row in differences]
    exact = [
        permutation_test((each, 0 * each), lambda a, b: np.mean(a - b), permutation_type="samples").pvalue
        for each in sums
    ]
    p, corrected = significance.sign_flips(differences, groups, flips=50_000)
    np.testing.assert_allclose(p, exact, atol=0.01)
    assert (corrected >= p).all()


def test_the_corrected_p_of_one_model_is_its_p():
    groups = np.arange(60) // 5
    differences = np.random.default_rng(1).integers(-1, 3, (1, 60))
    p, corrected = significance.sign_flips(differences, groups)
    assert p == corrected
    assert 0 < p < 0.2
    assert significance.sign_flips(0 * differences, groups) == (1.0, 1.0)


def test_the_best_of_many_equal_models_is_rarely_found_better():
    """Without correction, the best of 20 models as good as the other has p < .05 in most experiments."""
    rng = np.random.default_rng(0)
    groups = np.arange(40) // 2
    found = [significance.sign_flips(rng.integers(-1, 2, (20, 40)), groups, flips=400) for _ in range(200)]
    single, corrected = (np.mean([each[k].min() < 0.05 for each in found]) for k in (0, 1))
    assert single > 0.3
    assert corrected < 0.09  # .05 is expected, with a standard error of .015

"""Fusion rules against published numbers, and against Dempster's rule on the full power set in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rann_jax import fusion, masses

MASS_RULES = {name: rule for name, rule in fusion.RULES.items() if name != "wa"}

# Evidence sets from the literature with the results of Dempster, Murphy and Deng; the last result ("ids") is
# from our reconstruction of the improved rule.
LITERATURE = {
    "one_odd_out": (
        [(1, 0, 0), (0, 1, 0), (0.8, 0.1, 0.1), (0.8, 0.1, 0.1)],
        {"murphy": [0.9566, 0.0434, 0], "deng": [0.9995, 0.0004, 0], "ids": [0.9995, 0.0005, 0]},
    ),
    "veto": (
        [(0.5, 0.2, 0.3), (0.5, 0.2, 0.3), (0, 0.9, 0.1), (0.5, 0.2, 0.3)],
        {
            "ds": [0, 0.7273, 0.2727],
            "murphy": [0.4551, 0.4551, 0.0899],
            "deng": [0.7253, 0.1593, 0.1154],
            "ids": [0.5954, 0.2990, 0.1057],
        },
    ),
    "zadeh_and_two": (
        [(0.9, 0.1, 0), (0, 0.1, 0.9), (0.1, 0.15, 0.75), (0.1, 0.15, 0.75)],
        {
            "ds": [0, 1, 0],
            "murphy": [0.0422, 0.0018, 0.9560],
            "deng": [0.0013, 0.0011, 0.9976],
            "ids": [0.0016, 0.0010, 0.9974],
        },
    ),
    "five_models": (
        [
            (0.7, 0.1, 0.1, 0, 0.1),
            (0, 0.5, 0.2, 0.1, 0.2),
            (0.6, 0.1, 0.15, 0, 0.15),
            (0.55, 0.1, 0.1, 0.15, 0.1),
            (0.6, 0.1, 0.2, 0, 0.1),
        ],
        {
            "ds": [0, 0.3571, 0.4286, 0, 0.2143],
            "murphy": [0.9894, 0.0066, 0.0027, 0, 0.0013],
            "deng": [0.9959, 0.0019, 0.0016, 0, 0.0007],
            "ids": [0.9965, 0.0015, 0.0014, 0, 0.0006],
        },
    ),
}


SHAPES = [(1, 3), (2, 2), (3, 4), (5, 5)]


@st.composite
def evidence(draw, least_models=1, with_zeros=True):
    """Draw float32 masses (M, C), some sharp, some with impossible classes."""
    # Only a few shapes, because each one is compiled.
    m, c = draw(st.sampled_from([shape for shape in SHAPES if shape[0] >= least_models]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.random((m, c)) ** draw(st.sampled_from([1, 5])) + 1e-3
    if with_zeros:
        raw *= rng.random((m, c)) > draw(st.sampled_from([0, 0.3]))
        raw[np.arange(m), rng.integers(0, c, m)] += 0.1
    return (raw / raw.sum(-1, keepdims=True)).astype(np.float32)


def power_set_combination(masses):
    """Return the unnormalised conjunction over all subsets; the mass of the empty set is the conflict."""
    classes = range(len(masses[0]))
    frame = [frozenset(s) for size in range(len(classes) + 1) for s in itertools.combinations(classes, size)]
    combined = {subset: float(subset == frozenset(classes)) for subset in frame}
    for mass in masses:
        singletons = {frozenset([c]): float(value) for c, value in enumerate(mass)}
        product = dict.fromkeys(frame, 0.0)
        for (a, x), (b, y) in itertools.product(combined.items(), singletons.items()):
            product[a & b] += x * y
        combined = product
    return combined


def brute_force(masses):
    """Return (fused, conflict) in float64; fused is None for complete conflict."""
    combined = power_set_combination(masses)
    fused = np.array([combined[frozenset([c])] for c in range(len(masses[0]))])
    return (fused / fused.sum() if fused.sum() > 0 else None), combined[frozenset()]


def deng_average(masses, reliability):
    masses = np.asarray(masses, np.float64)
    support = [
        sum(1 - np.sqrt(0.5 * np.sum((a - b) ** 2)) for j, b in enumerate(masses) if j != i)
        for i, a in enumerate(masses)
    ]
    weights = np.array(support) * reliability
    if weights.sum() < 1e-6:  # no model supports another
        weights = np.ones(len(masses))
    return (weights[:, None] * masses).sum(0) / weights.sum()


@pytest.mark.fast
@pytest.mark.parametrize("name", LITERATURE)
def test_published_numbers(name):
    masses, results = LITERATURE[name]
    for rule, expected in results.items():
        np.testing.assert_allclose(fusion.RULES[rule](masses), expected, atol=6e-5)
    majority = np.bincount(np.argmax(masses, axis=1)).argmax()
    assert np.argmax(fusion.improved_dempster_shafer(masses)) == majority


@pytest.mark.fast
def test_zadeh():
    masses = [(0.99, 0.01, 0), (0, 0.01, 0.99)]
    np.testing.assert_allclose(fusion.dempster_shafer(masses), [0, 1, 0], atol=5e-5)
    np.testing.assert_allclose(fusion.conflict(masses), 0.9999, atol=5e-7)


@pytest.mark.fast
def test_complete_conflict_is_the_average():
    masses = np.array(LITERATURE["one_odd_out"][0])
    np.testing.assert_allclose(fusion.dempster_shafer(masses), masses.mean(0), rtol=1e-6)
    assert fusion.conflict(masses) == 1
    for rule in MASS_RULES.values():  # no model supports another
        np.testing.assert_allclose(rule(np.eye(2)), [0.5, 0.5], rtol=1e-6)


@pytest.mark.fast
def test_support_from_rounding_has_no_weight():
    """Three models each certain of another class, except for 2e-7: shares of such support are noise."""
    masses = np.array([(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1 - 2e-7, 2e-7)], np.float32)
    for rule in (fusion.deng, fusion.improved_dempster_shafer):
        np.testing.assert_allclose(rule(masses), fusion.murphy(masses), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(evidence())
def test_dempster_shafer_equals_the_rule_on_the_power_set(masses):
    expected, k = brute_force(masses)
    np.testing.assert_allclose(fusion.conflict(masses), k, atol=2e-6)
    expected = masses.mean(0) if expected is None else expected
    np.testing.assert_allclose(fusion.dempster_shafer(masses), expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(evidence(least_models=2))
def test_averaging_rules_equal_repeated_combination(masses):
    n = len(masses)
    impurity = 1 - (masses.astype(np.float64) ** 2).sum(-1)
    for rule, average in (
        ("murphy", masses.astype(np.float64).mean(0)),
        ("deng", deng_average(masses, np.ones(n))),
        ("ids", deng_average(masses, np.exp(-impurity))),
    ):
        expected, _ = brute_force([average] * n)
        np.testing.assert_allclose(fusion.RULES[rule](masses), expected, atol=2e-5)


@settings(deadline=None, max_examples=30)
@given(evidence(), st.randoms(use_true_random=False))
def test_rules_are_normalised_symmetric_and_keep_a_single_model(masses, random):
    shuffled = masses[random.sample(range(len(masses)), len(masses))]
    for rule in fusion.RULES.values():
        fused = rule(masses)
        np.testing.assert_allclose(fused.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(rule(shuffled), fused, atol=2e-5)
        np.testing.assert_allclose(rule(masses[:1]), masses[0], atol=1e-6)
    np.testing.assert_allclose(fusion.conflict(shuffled), fusion.conflict(masses), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(evidence(with_zeros=False))
def test_a_uniform_model_is_neutral(masses):
    uniform = np.full_like(masses[:1], 1 / masses.shape[1])
    fused = fusion.dempster_shafer(np.concatenate([masses, uniform]))
    np.testing.assert_allclose(fused, fusion.dempster_shafer(masses), atol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("rule", fusion.RULES)
def test_ten_models_and_a_thousand_classes_in_float32(rule):
    """Products reach 1e-60; float64 is exact enough as the reference."""
    logits = np.random.default_rng(0).normal(0, 3, (10, 7, 1000))
    exact = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    fused = jax.jit(fusion.RULES[rule])(exact.astype(np.float32))
    assert np.isfinite(fused).all()
    np.testing.assert_allclose(fused.sum(-1), 1, atol=1e-5)
    if rule == "ds":
        product = exact.prod(0)
        np.testing.assert_allclose(fused, product / product.sum(-1, keepdims=True), rtol=1e-3, atol=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize("rule", [*fusion.RULES, "conflict"])
def test_gradients_equal_differences_in_float64(rule):
    """Along random directions that keep the sums of the masses, for every fused class."""
    function = fusion.conflict if rule == "conflict" else fusion.RULES[rule]
    rng, step = np.random.default_rng(0), 1e-5
    masses = rng.dirichlet(np.full(3, 3.0), 4)
    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacrev(function))(masses)
        for direction in rng.normal(size=(5, 4, 3)):
            direction -= direction.mean(axis=-1, keepdims=True)
            rise = function(masses + step * direction) - function(masses - step * direction)
            found = jnp.tensordot(slopes, direction, axes=2)
            assert found.dtype == jnp.float64
            np.testing.assert_allclose(found, rise / (2 * step), rtol=1e-4, atol=1e-8)


@pytest.mark.fast
@pytest.mark.parametrize("rule", [*fusion.RULES, "conflict"])
def test_gradients_are_finite_at_edges(rule):
    function = fusion.conflict if rule == "conflict" else fusion.RULES[rule]
    slopes = jax.jit(jax.jacrev(function))
    for edge in (np.eye(3), [[1, 0, 0], [1, 0, 0]], [[1, 0], [0, 1]]):
        assert np.isfinite(slopes(jnp.asarray(edge, jnp.float32))).all()


@pytest.mark.fast
@pytest.mark.parametrize("rule", fusion.RULES)
def test_bfloat16_masses_are_fused_in_float32(rule):
    masses = jnp.asarray([[0.75, 0.25], [0.125, 0.875], [0.6875, 0.3125]], jnp.bfloat16)
    fused = fusion.RULES[rule](masses)
    assert fused.dtype == jnp.float32
    np.testing.assert_allclose(fused, fusion.RULES[rule](np.asarray(masses, np.float64)), rtol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masses_below_the_smallest_normal_number_of_float32_are_zero(dtype):
    masses = np.array([[1, 1e-39, 0], [0, 1, 0]], dtype)
    with jax.enable_x64(True):
        np.testing.assert_allclose(fusion.dempster_shafer(masses), masses.mean(0), rtol=1e-6)
        assert fusion.conflict(masses) == 1


@pytest.mark.fast
@pytest.mark.parametrize("rule", fusion.RULES)
def test_leading_axes_are_independent_examples(rule):
    masses = np.random.default_rng(1).dirichlet(np.ones(4), (3, 2, 5)).astype(np.float32)
    whole = fusion.RULES[rule](masses)
    assert whole.shape == (2, 5, 4)
    assert fusion.conflict(masses).shape == (2, 5)
    np.testing.assert_allclose(whole[1, 3], fusion.RULES[rule](masses[:, 1, 3]), rtol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("rule", MASS_RULES)
def test_tagging_fuses_every_class_separately(rule):
    probs = np.random.default_rng(2).random((3, 6, 4)).astype(np.float32)
    fused = fusion.fuse(rule, probs, task="tagging")
    frames = np.stack([probs[:, 2, 1], 1 - probs[:, 2, 1]], -1)
    np.testing.assert_allclose(fused[2, 1], fusion.RULES[rule](frames)[0], rtol=1e-5)
    if rule == "ds":
        odds = (probs.astype(np.float64) / (1 - probs)).prod(0)
        np.testing.assert_allclose(fused, odds / (1 + odds), rtol=2e-4)
    assert fusion.conflict(fusion.masses_for("tagging", probs)).shape == (6, 4)


@pytest.mark.fast
@pytest.mark.parametrize("rule", fusion.RULES)
def test_tagging_accepts_rounding_above_one(rule):
    probs = np.asarray([[1.0000001, 0.25], [0.5, 0.25]], np.float32)
    exact = np.minimum(probs, 1)
    fused = fusion.fuse(rule, probs, task="tagging")
    np.testing.assert_allclose(fused, fusion.fuse(rule, exact, task="tagging"), rtol=1e-6)
    np.testing.assert_array_equal(fusion.binary_frames(probs)[0, 0], [1, 0])
    with pytest.raises(ValueError, match=r"1\.01 of model 0"):
        fusion.fuse(rule, [[1.01, 0.25], [0.5, 0.25]], task="tagging")


@pytest.mark.fast
@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("rule", fusion.RULES)
def test_values_are_checked_once(rule, task, monkeypatch):
    """Each check copies the values from the device."""
    checks = []
    check = masses._check_values
    monkeypatch.setattr(masses, "_check_values", lambda *given: checks.append(given) or check(*given))
    fusion.fuse(rule, [[0.5, 0.5], [0.25, 0.75]], task=task)
    assert len(checks) == 1


@pytest.mark.fast
def test_weights_of_the_average():
    probs = np.random.default_rng(3).dirichlet(np.ones(4), (3, 5))
    np.testing.assert_allclose(
        fusion.fuse("wa", probs, weights=[2, 1, 1]), np.average(probs, 0, [2, 1, 1]), rtol=1e-5
    )
    multi_hot = [[0.9, 0.9], [0.1, 0.3]]
    np.testing.assert_allclose(fusion.fuse("wa", multi_hot, task="tagging"), [0.5, 0.6], rtol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("scale", [1e-46, 1e38, 1.5e308, 2**40], ids=str)
def test_weights_of_any_scale(scale):
    """The scale is beyond float32's range, the sum beyond it, or beyond int32's."""
    weights = np.array([scale, scale])
    np.testing.assert_allclose(fusion.fuse("wa", [[0.5, 0.5], [1, 0]], weights=weights), [0.75, 0.25])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("masses", "says"),
    [
        ([[0.5, 0.5], [-0.1, 1.1]], "model 1 at .0,. is negative"),
        (
            [[0.5, 0.5], [0.5, 0.4]],
            r"model 1 at .. sum to 0.9, not to 1: divide by probs\.sum\(-1, keepdims=True\), or .*'tagging'",
        ),
        ([[0.5, np.nan]], r"nan of model 0 at \(1,\) is not finite"),
        ([[0.0, np.inf]], "not finite"),
        ([0.5, 0.5], r"shape \(2,\)"),
        (np.zeros((0, 3)), "empty"),
        (np.zeros((2, 0)), "empty"),
    ],
    ids=["negative", "sum", "nan", "inf", "vector", "no-models", "no-classes"],
)
@pytest.mark.parametrize("rule", [*fusion.RULES, "conflict"])
def test_malformed_masses_are_refused(rule, masses, says):
    if rule == "wa" and "sum to" in says:  # averages multi-label probabilities too, so any sum is valid
        np.testing.assert_allclose(fusion.weighted_average(masses), np.mean(masses, axis=0), rtol=1e-6)
        return
    function = fusion.conflict if rule == "conflict" else fusion.RULES[rule]
    with pytest.raises(ValueError, match=says):
        function(masses)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rule": "vote"}, "no fusion rule 'vote': use one of wa, ds, ids, murphy, deng$"),
        ({"rule": "dempster_shafer"}, r"no fusion rule 'dempster_shafer'.*; did you mean 'ds'\?"),
        ({"rule": "DS"}, r"did you mean 'ds'\?"),
        ({"rule": "murfy"}, r"did you mean 'murphy'\?"),
        (
            {"rule": "ds", "task": "multilabel"},
            r"not 'multilabel': .* tagging for any number \(multi",
        ),
        ({"rule": "ds", "weights": [1, 1]}, "takes no weights"),
        ({"rule": "ds", "task": "regression"}, "classification or tagging"),
        ({"rule": "wa", "weights": [1, 1, 1]}, "weights must be one per model, 2 here"),
        ({"rule": "wa", "weights": [0, 0]}, "not all zero"),
        ({"rule": "wa", "weights": [-1, 2]}, "not negative"),
        ({"rule": "wa", "weights": [np.nan, 2]}, "finite"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_malformed_requests_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        fusion.fuse(arguments.pop("rule"), [[0.5, 0.5], [0.2, 0.8]], **arguments)


def test_a_new_rule_is_one_line_of_the_registry(monkeypatch):
    monkeypatch.setitem(
        fusion.RULES, "product", lambda masses: masses.prod(0) / masses.prod(0).sum(-1, keepdims=True)
    )
    probs = np.array([[[0.7, 0.3]], [[0.6, 0.4]]])
    for task in ("classification", "tagging"):
        expected = fusion.fuse("ds", probs, task=task)
        np.testing.assert_allclose(fusion.fuse("product", probs, task=task), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="is negative"):
        fusion.fuse("product", -probs)


def _conflict(probs):
    return fusion.conflict(fusion.masses_for("classification", probs))


@pytest.mark.fast
@pytest.mark.parametrize("rule", [*fusion.RULES, "conflict"])
@pytest.mark.parametrize(("classes", "decimals"), [(3, 3), (10, 3), (527, 4)])
def test_rounded_probabilities_are_scaled(rule, classes, decimals):
    """As a csv file has them; scaled in float64 before, they give the same."""
    rng = np.random.default_rng(classes)
    rounded = rng.dirichlet(np.full(classes, 0.3), (2, 40)).round(decimals)
    rounded = rounded[:, (np.abs(rounded.sum(-1) - 1) < 0.0095).all(0)]
    sums = rounded.sum(-1, keepdims=True)
    assert np.abs(sums - 1).max() > 9e-4
    function = _conflict if rule == "conflict" else functools.partial(fusion.fuse, rule)
    found, expected = function(rounded), function(rounded / sums)
    if rule != "conflict":
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.fast
def test_probabilities_of_zero_in_jit_stay_finite():
    """Values are not checked there; rows may be padding."""
    for rule in fusion.RULES:
        fused = jax.jit(lambda probs, rule=rule: fusion.fuse(rule, probs))(jnp.zeros((2, 3)))
        assert np.isfinite(fused).all()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("probs", "targets", "task", "says"),
    [
        ([[[0.9, 0.1]]], [[1, 0]], "multilabel", "task must be classification or tagging, not 'multilabel'"),
        (
            [[[0.9, 0.1]]],
            [0],
            "classification",
            r"not \(1,\) and \(1, 2\): .* np\.eye\(C\)\[y\]",
        ),
        ([[0.9, 0.1]], [1, 0], "classification", r"both be \(n, C\), not \(2,\) and \(2,\)"),
        ([[[0.9, 0.9]]], [[1, 0]], "classification", "sum to 1.8"),
        ([[[0.9, 0.1]]], [[0.5, 0.5]], "classification", "targets must be 0 or 1"),
    ],
    ids=["task", "indices", "vectors", "sums", "graded"],
)
def test_malformed_fits_are_refused(probs, targets, task, says):
    with pytest.raises(ValueError, match=says):
        fusion.fit_weights(probs, targets, task=task)


@pytest.mark.parametrize("rule", fusion.RULES)
def test_numbers_in_the_byte_order_of_another_machine(rule):
    masses = np.array([[0.75, 0.25], [0.5, 0.5]], np.float32)
    swapped = masses.astype(masses.dtype.newbyteorder())
    np.testing.assert_array_equal(fusion.fuse(rule, swapped), fusion.fuse(rule, masses))

"""Models are compared from bare arrays, of any program, as the programs compare runs."""

import numpy as np
import pytest
from sklearn import metrics as sk

from rann_jax import comparison, fusion
from rann_jax.report import fusion_table
from tests.made_predictions import TARGETS, predicted

pytestmark = pytest.mark.fast

PROBS = {name: predicted(seed, 2.0 - 0.5 * seed).probabilities for seed, name in enumerate(("a", "b", "c"))}


def test_arrays_give_the_rows_of_predictions():
    models = {name: predicted(seed, 2.0 - 0.5 * seed) for seed, name in enumerate(PROBS)}
    subsets = comparison.every_subset(list(PROBS))
    expected = fusion_table.rows(models, list(fusion.RULES), subsets, draws=20)
    found = comparison.compare(PROBS, TARGETS, draws=20)
    assert len(found) == 3 + 4 * 5
    np.testing.assert_equal(found, expected)


def test_probabilities_of_a_csv_file():
    """Rounded, in float64, and as lists."""
    rounded = {name: probs.astype(float).round(3) for name, probs in PROBS.items()}
    rows = comparison.compare(
        {name: probs.tolist() for name, probs in rounded.items()},
        TARGETS.tolist(),
        rules=["ds"],
        subsets=[["c", "a"]],
        draws=0,
    )
    assert [(row["models"], row["rule"]) for row in rows] == [*((n, "single") for n in "abc"), ("c+a", "ds")]
    for row in rows[:3]:
        scores = rounded[row["models"]]
        assert row["mAP"] == pytest.approx(sk.average_precision_score(TARGETS, scores), abs=1e-12)
        assert np.isnan(row["mAP_low"])
    fused = rounded["a"] * rounded["c"]
    assert rows[3]["accuracy"] == np.mean(fused.argmax(1) == TARGETS.argmax(1))


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_votes_for_one_class_are_probabilities_too(dtype):
    """Unsigned integers have no negatives to be ranked by, and booleans none at all."""
    votes = {name: np.eye(probs.shape[1])[probs.argmax(1)] for name, probs in PROBS.items()}
    typed = {name: vote.astype(dtype) for name, vote in votes.items()}
    found, expected = (comparison.compare(given, TARGETS, rules=["wa"], draws=20) for given in (typed, votes))
    np.testing.assert_equal(found, expected)


def test_weights_are_of_each_subset():
    def fitted(names):
        return fusion.fit_weights([PROBS[name] for name in names], TARGETS)

    rows = comparison.compare(PROBS, TARGETS, rules=["wa", "ds"], weights=fitted, draws=0)
    by_name = {(row["models"], row["rule"]): row for row in rows}
    shares = fitted(["b", "c"])
    assert by_name["b+c", "wa"]["weights"] == "+".join(f"{share:.3f}" for share in shares)
    assert by_name["b+c", "ds"]["weights"] == ""
    average = shares @ np.stack([PROBS["b"], PROBS["c"]]).reshape(2, -1)
    expected = sk.average_precision_score(TARGETS, average.reshape(TARGETS.shape))
    assert by_name["b+c", "wa"]["mAP"] == pytest.approx(expected, abs=1e-6)


def test_groups_of_clips_are_drawn_and_compared_as_one():
    """The groups of two speakers say as little as two clips: no p is below 1/2, and intervals are wide."""
    speakers = np.where(np.arange(len(TARGETS)) % 4 < 2, "amy", "bob")
    alone = comparison.compare(PROBS, TARGETS, draws=200)
    grouped = comparison.compare(PROBS, TARGETS, draws=200, groups=speakers)
    best = max(grouped[:3], key=lambda row: row["accuracy"])
    assert best["p"] == best["p_corrected"] == 1
    by_speaker = [
        np.mean((PROBS["c"].argmax(1) == TARGETS.argmax(1))[speakers == name]) for name in ("amy", "bob")
    ]
    for one, other in zip(alone, grouped, strict=True):
        assert [one[name] for name in comparison.COLUMNS] == [other[name] for name in comparison.COLUMNS]
        assert 0.45 < other["p"] <= other["p_corrected"] <= 1
        assert "p_corrected" not in one
    assert (grouped[2]["accuracy_low"], grouped[2]["accuracy_high"]) == pytest.approx(sorted(by_speaker))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probs": {}}, "no models"),
        (
            {"probs": {"a": PROBS["a"], "b": PROBS["b"][:5]}},
            r"of b must both be .n, C.*, not .40, 3. and .5, 3.",
        ),
        ({"probs": {"a": PROBS["a"], "b": PROBS["b"] / 2}}, "^masses of b at .* divide by probs.sum"),
        ({"targets": TARGETS.argmax(1)}, r"of a must both be .*np\.eye\(C\)\[y\]"),
        ({"task": "multi-label"}, "task must be classification or tagging"),
        ({"rules": ["dempster"]}, r"no fusion rule 'dempster'"),
        ({"subsets": [["a", "d"]]}, r"subset \['a', 'd'\]: name models, each once, from a, b, c"),
        ({"subsets": [["a", "a"]]}, "each once"),
        ({"draws": -1}, "draws=-1: give a number of draws, or 0"),
        ({"groups": ["x", "y"]}, r"groups must be \(40,\), one of each clip, not \(2,\)"),
        ({"groups": ["x"] * len(TARGETS)}, "all clips are in the same"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_arguments(changes, says):
    arguments = {"probs": PROBS, "targets": TARGETS, "draws": 0} | changes
    with pytest.raises(ValueError, match=says):
        comparison.compare(arguments.pop("probs"), arguments.pop("targets"), **arguments)

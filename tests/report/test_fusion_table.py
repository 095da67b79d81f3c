"""The fusion table has a row per model and per fusion, in classification and in tagging."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn import metrics as sk

from rann_jax import comparison, ensemble
from rann_jax.report import crossval_tables, fusion_table
from tests.made_predictions import TARGETS, predicted

pytestmark = pytest.mark.fast


def test_subsets_are_all_of_two_and_more():
    subsets = comparison.every_subset("abcde")
    assert len(subsets) == len(set(subsets)) == 26
    assert set(itertools.combinations("abcde", 2)) < set(subsets)


def test_a_model_with_a_plus_in_its_name():
    """A model named `a+b`, the fusion of `a` and `b`, and fusions with that model get separate lines."""
    names = ["log_mel", "wavegram", "log_mel+wavegram"]
    models = {name: predicted(seed) for seed, name in enumerate(names)}
    rows = fusion_table.rows(models, ["wa"], comparison.every_subset(names), draws=0)
    lines = fusion_table.by_rule(rows, "accuracy")
    assert [line["models"] for line in lines] == [
        *names,
        "log_mel+wavegram",
        "log_mel+(log_mel+wavegram)",
        "wavegram+(log_mel+wavegram)",
        "log_mel+wavegram+(log_mel+wavegram)",
    ]
    assert [np.isnan(line["wa"]) for line in lines] == [True] * 3 + [False] * 4
    assert [np.isnan(line["single"]) for line in lines] == [False] * 3 + [True] * 4


def test_tagging_is_scored_too(tmp_path, capsys):
    for seed in range(2):
        one = dataclasses.replace(predicted(seed), task="tagging", targets=TARGETS | TARGETS[::-1])
        one.save(tmp_path / str(seed), "test")
    models = ensemble.load_models([tmp_path / "0", tmp_path / "1"], "test")
    rows = fusion_table.rows(models, ["ds"], [("0", "1")], draws=0)
    p, q = (m.probabilities.astype(np.float64) for m in models.values())
    fused = p * q / (p * q + (1 - p) * (1 - q))
    expected = sk.average_precision_score(TARGETS | TARGETS[::-1], fused)
    assert rows[-1]["mAP"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(rows[-1]["mAP_low"])
    # Models are compared by mAP: the best single one, the tables by rule, and the folds of crossval.
    best = max(rows[:2], key=lambda row: row["mAP"])
    assert best["p"] == 1
    assert fusion_table.headline(models[best["models"]]) == best["mAP"]
    assert (
        ensemble.main([str(tmp_path / "0"), str(tmp_path / "1"), "--rules", "ds", "--out", str(tmp_path)])
        == 0
    )
    capsys.readouterr()
    assert (tmp_path / "ensemble_mAP.md").read_text().splitlines()[-1] == f"| 0+1 |  | {expected:.3f} |"
    (line,) = crossval_tables.feature_rows({"mel": {1: models["0"]}}, {"mel": models["0"]}, draws=0)
    assert line["fold1"] == line["mAP"] == rows[0]["mAP"]

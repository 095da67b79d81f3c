"""The benchmark of features: what one line measures, with and without a known memory bandwidth."""

from types import SimpleNamespace

import jax
import pytest

from benchmarks import features
from benchmarks.feature_cases import Case, direct


def absent(_):
    raise ImportError("no such library")


TWICE = Case(
    "twice",
    jax.jit(lambda y: 2 * y),
    lambda y: 2 * y,
    {"librosa": direct(lambda y: 2 * y), "torch": direct(lambda y: 2.02 * y), "nnAudio": absent},
)


@pytest.mark.fast
@pytest.mark.parametrize("bandwidth", [None, 1e9])
def test_a_line_has_errors_times_and_bandwidth(bandwidth):
    line = features.measure(TWICE, 1, 2, list(TWICE.peers), bandwidth)
    measured = line["contenders"]
    assert {name: of["error"] for name, of in measured.items()} == {
        "ours": 0.0,
        "librosa": 0.0,
        "torch": pytest.approx(0.01, rel=1e-3),
    }
    assert line["missing"] == {"nnAudio": "no such library"}
    assert all(of["calls"] == 2 and of["median_s"] > 0 for of in measured.values())
    moved = 2 * features.synthesise(1).nbytes
    share = None if bandwidth is None else moved / measured["ours"]["median_s"] / bandwidth
    assert measured["ours"].get("bandwidth_share") == share
    assert ("of bandwidth" in features.table([line], bandwidth is not None)) == (bandwidth is not None)


@pytest.mark.fast
@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 1), (0.005, 4), (1e-6, features.QUEUED)])
def test_a_turn_makes_enough_calls_to_fill_its_time(monkeypatch, seconds, calls):
    clock = iter([7.0, 7.0 + seconds])
    monkeypatch.setattr(features, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert features.turn(lambda: None) == calls

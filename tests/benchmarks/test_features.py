"""The benchmark of features: what one line measures, with and without a known memory bandwidth."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import features
from benchmarks.feature_cases import Case, direct, librosax, shared


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
def test_librosax_gets_all_devices_as_ours_does(monkeypatch):
    parts = []
    feature = SimpleNamespace(twice=lambda y: parts.append(y.shape) or 2 * y)
    monkeypatch.setitem(sys.modules, "librosax", SimpleNamespace(feature=feature))
    monkeypatch.setitem(sys.modules, "librosax.feature", feature)
    batch = np.ones((2 * jax.device_count(), 3), np.float32)
    twice = librosax("feature.twice")(batch)()
    assert parts == [(2, 3)]
    assert twice.sharding == shared(batch).sharding
    assert len(twice.devices()) == jax.device_count() > 1
    np.testing.assert_array_equal(twice, 2 * batch)

"""The simulation of bootstrap intervals runs, and its expected scores lie where most intervals are."""

import json

import pytest

from benchmarks import intervals

pytestmark = pytest.mark.fast


def test_the_program_counts_what_intervals_contain(tmp_path, capsys):
    path = tmp_path / "out.json"
    sizes = ["--groups", "6", "--sets", "20", "--draws", "100", "--expected-of", "100"]
    intervals.main([*sizes, "--json", str(path)])
    plain, expanded = json.loads(path.read_text())["rows"]
    for name in intervals.RANGES:
        assert 0.4 < plain[name] <= expanded[name] <= 1
    assert capsys.readouterr().out.count("| 6 ") == 2

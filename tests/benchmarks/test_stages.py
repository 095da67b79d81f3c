"""The table of stages: every stage is timed, and so is the whole step, which donates its state."""

import json

import pytest
from ml_collections import ConfigDict

from benchmarks import stages
from benchmarks.workload import Workload


@pytest.mark.usefixtures("quickly_compiled")
def test_every_part_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages.machine, "matmul_flops", lambda dtype: 1e9)
    monkeypatch.setattr(stages.machine, "bandwidth", lambda: 1e9)
    whole = Workload.config

    def shallow(workload: Workload) -> ConfigDict:
        config = whole(workload)
        config.model.blocks_per_stage = 1
        return config

    monkeypatch.setattr(Workload, "config", shallow)
    file = tmp_path / "stages.json"
    stages.main(["--network", "rann-0.5x8-1", "--batch", "1", "--repeats", "2", "--json", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["part"] for row in rows] == [*(f"stage {number}" for number in range(5)), "whole step"]
    assert all(row["ms"] > 0 and row["gbyte"] > 0 for row in rows)
    # The stages are the network without its head and first BatchNorm; a step is three times the forward pass.
    assert sum(row["gflop"] for row in rows[:5]) == pytest.approx(rows[5]["gflop"], rel=0.01)
    assert rows[0]["floor ms"] == pytest.approx(1e3 * max(rows[0]["gflop"], rows[0]["gbyte"]))
    assert "| whole step" in capsys.readouterr().out

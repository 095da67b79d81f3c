"""The table of stages: every stage is timed, and so is the whole step, which donates its state."""

import json

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from benchmarks import stages
from benchmarks.workload import Workload
from rann_jax import models


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


def test_packed_stages_count_the_same_arithmetic(monkeypatch):
    monkeypatch.setattr(stages, "compiled", lambda function, arguments, device: arguments)
    network = models.create("rann-0.5x4-2", num_classes=2, blocks_per_stage=1)
    first = jax.ShapeDtypeStruct((1, 16, 64, 1), jnp.float32)
    plain, packed = (list(stages.stage_parts(network, first, lanes, None)) for lanes in (1, 64))
    assert [part.flops for part in packed] == [part.flops for part in plain]
    assert [part.output for part in packed] == [part.output for part in plain]
    # 16 channels in stage 0: four columns fill 64 lanes; two do in stage 1.
    assert plain[1].arguments[1].shape == (1, 16, 64, 16)
    assert packed[1].arguments[1].shape == (1, 16, 16, 64)
    assert packed[1].arguments[2].shape == (1, 8, 8, 64)

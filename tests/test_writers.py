"""metrics.jsonl is read back as it was written; anything else is refused in one line."""

import json
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest

from rann_jax import writers
from rann_jax.errors import ConfigError
from rann_jax.writers import METRICS, MetricWriter, read_metrics

pytestmark = pytest.mark.fast


def test_a_resumed_run_replaces_the_rows_after_its_step(tmp_path):
    with closing(MetricWriter(tmp_path, 0)) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"train/loss": 1 / step, "test/mAP": float("nan")})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "tra')  # as a killed run leaves it
    assert read_metrics(tmp_path / METRICS)[2] == {"step": 3, "train/loss": 1 / 3, "test/mAP": None}
    with closing(MetricWriter(tmp_path, 2)) as writer:
        writer.write(3, {"train/loss": 0.5})
    assert [row["train/loss"] for row in read_metrics(tmp_path / METRICS)] == [1.0, 0.5, 0.5]


def test_tensorboard_gets_only_finite_numbers(tmp_path, monkeypatch):
    made = drawn(monkeypatch)
    with closing(MetricWriter(tmp_path, 4)) as writer:
        writer.write(5, {"train/loss": 0.5, "test/mAP": float("nan")})
    assert made == [(str(tmp_path / "tensorboard"), 4), ("train/loss", 0.5, 5), "closed"]


@pytest.mark.parametrize("due", [False, True])
def test_tensorboard_shows_the_rows_of_metrics_jsonl_once(tmp_path, monkeypatch, due):
    """It purges all rows from a step on, so those of this step that are kept are drawn again."""
    made = drawn(monkeypatch)
    with closing(MetricWriter(tmp_path, 0)) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"train/loss": 1 / step})
            writer.write(step, {"test/mAP": step / 4})
    made.clear()
    MetricWriter(tmp_path, 2, evaluation_due=due).close()
    scores = [] if due else [("test/mAP", 0.5, 2)]
    assert made == [(str(tmp_path / "tensorboard"), 2), ("train/loss", 0.5, 2), *scores, "closed"]
    assert len(read_metrics(tmp_path / METRICS)) == 3 + len(scores)


def drawn(monkeypatch):
    """Replace tensorboardX, which is optional and warns of every NaN; return the list of what it is given."""
    made = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, *scalar):
            made.append(scalar)

        def close(self):
            made.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    return made


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "line 2: Expecting value"),
        ("[1]", "line 2: it is not an object with a step"),
        ('{"train/loss": 1.0}', "line 2: it is not an object with a step"),
        ('{"step": 1.5}', "line 2: it is not an object with a step"),
        ('{"step": -1}', "line 2: it is not an object with a step"),
        ('{"step": 1e999}', "line 2: it is not an object with a step"),
        (f'{{"step": {2**31}}}', "line 2: it is not an object with a step"),
        ('{"step": 2, "train/loss": "low"}', "line 2: train/loss is not a finite number"),
        ('{"step": 2, "train/loss": NaN}', "line 2: train/loss is not a finite number"),
        ('{"step": 2, "train/loss": true}', "line 2: train/loss is not a finite number"),
        (f'{{"step": 2, "train/loss": 1{"0" * 400}}}', "line 2: train/loss is not a finite number"),
        ("[" * 100_000, "line 2: "),
        ("\x00\x00", "line 2: "),
    ],
    ids=range(13),
)
def test_a_damaged_file_is_one_line(tmp_path, line, says):
    path = tmp_path / METRICS
    path.write_text(json.dumps({"step": 1}) + f"\n{line}\n")
    with pytest.raises(ConfigError) as error:
        MetricWriter(tmp_path, 1)
    assert str(error.value).startswith(f"{path} is not the metrics of a run: {says}")
    assert str(error.value).endswith(": repair it, or move it away")
    assert "\n" not in str(error.value)
    assert path.read_text().endswith(f"{line}\n")


def test_a_file_too_large_for_metrics_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "MAX_BYTES", 20)
    (tmp_path / METRICS).write_text('{"step": 1}\n{"step": 2}\n')
    with pytest.raises(ConfigError, match="larger than 20 bytes"):
        read_metrics(tmp_path / METRICS)

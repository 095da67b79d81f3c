"""The interval between two rows of metrics: how speed is measured; and diverged states are never saved."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax import distributed
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.main import run
from rann_jax.models.norm import BatchNorm
from rann_jax.models.registry import FAMILIES, Family
from rann_jax.training.trace import FOLDER, Trace, parse_steps
from rann_jax.writers import Interval, Progress, read_metrics
from tests.tiny import get_config


class Rows(list):
    """A stand-in for the writer that keeps what was written, by step."""

    def write(self, step, metrics):
        self.append((step, metrics))


class Quiet:
    """A stand-in for the progress bar."""

    def advance(self):
        pass

    def report(self, loss, clips_per_second, waiting):
        pass


class Clock:
    """A stand-in for time that advances only in `tick`."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def tick(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def metrics(loss=1.0, finite=True):
    return {"loss": jnp.float32(loss), "learning_rate": jnp.float32(1e-3), "finite": jnp.bool_(finite)}


@pytest.mark.fast
def test_speed_includes_reading_and_excludes_pauses(clock):
    """A step has 8 clips, and its seconds pass before `append`, while training waits for its batch."""
    rows = Rows()
    interval = Interval(rows, Quiet(), 0, batch_size=8)

    def train(seconds):
        clock.tick(seconds)
        interval.append(metrics())

    train(2)
    interval.flush()  # a step of 2 s
    train(4)
    interval.flush()  # a step of 4 s
    train(1)
    with interval.paused():  # a step of 1 s, then a checkpoint
        clock.tick(100)
    train(3)
    train(5)
    interval.flush()  # three steps in 9 s
    train(1)
    interval.flush()
    with interval.paused():  # an evaluation
        clock.tick(100)
    train(2)
    interval.flush()
    assert [step for step, _ in rows] == [1, 2, 5, 6, 7]
    assert [row["time/clips_per_second"] for _, row in rows] == [4, 2, 3 * 8 / 9, 8, 4]


class Running:
    """A stand-in for the loss of a step that the device is still computing when asked."""

    def is_ready(self):
        return False

    def __array__(self, dtype=None, copy=None):
        return np.ones((), np.float32)


@pytest.mark.fast
def test_waiting_counts_when_the_device_has_nothing_to_do(clock):
    rows = Rows()
    interval = Interval(rows, Quiet(), 0, batch_size=8)

    def step(wait, work, **loss):
        with interval.reading():
            clock.tick(wait)
        clock.tick(work)
        interval.append(metrics() | loss)

    step(1, 3)  # nothing was started before it
    step(2, 2)  # the step before it is done
    interval.flush()
    with interval.paused():
        clock.tick(100)
    step(0, 4, loss=Running())
    step(3, 1)  # the device is busy meanwhile
    interval.flush()
    assert [row["time/waiting_for_input"] for _, row in rows] == [3 / 8, 0]


@pytest.mark.fast
def test_the_progress_bar_shows_much_waiting(capsys):
    progress = Progress(0, 100, True)
    for share in (0.05, 0.4):
        progress.report(1.0, 20.0, share)
    progress.close()
    shown = capsys.readouterr().err
    assert "20 clips/s, 40% waiting for input" in shown
    assert "5% waiting" not in shown


@pytest.mark.fast
@pytest.mark.parametrize(
    ("loader", "devices", "cores", "expected"),
    [
        ({"num_threads": None, "prefetch": None}, 1, 16, (4, 8)),
        ({"num_threads": None, "prefetch": None}, 8, 64, (32, 32)),
        ({"num_threads": None, "prefetch": None}, 8, 16, (16, 16)),
        ({"num_threads": 2, "prefetch": None}, 8, 16, (2, 8)),
        ({"num_threads": None, "prefetch": 3}, 8, 16, (16, 3)),
        ({"num_threads": 0, "prefetch": 0}, 8, 16, (0, 0)),
    ],
)
def test_reading_scales_with_the_devices_of_a_process(monkeypatch, loader, devices, cores, expected):
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    monkeypatch.setattr(distributed.joblib, "cpu_count", lambda: cores)
    assert tuple(distributed.reading(loader).values()) == expected


@pytest.mark.fast
@pytest.mark.parametrize("text", ["", "5", "5:", "5:5", "6:5", "-1:5", "a:b"])
def test_steps_to_profile_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match=f"--profile={text}: give two numbers"):
        parse_steps(text)


@pytest.mark.fast
@pytest.mark.parametrize("end", [3, 10])
def test_a_trace_has_its_steps_and_no_more(tmp_path, monkeypatch, end):
    """Also if training resumes within them, or ends before the last."""
    events = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: events.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))
    trace = Trace(tmp_path, range(1, 4))
    for step in range(2, end):
        trace.reach(step, lambda: events.append("settle"))
        events.append(step)
    trace.close()
    expected = {3: ["stop"], 10: [3, "settle", "stop", *range(4, 10)]}[end]
    assert events == ["settle", "start", 2, *expected]


@pytest.mark.fast
def test_a_trace_is_kept_in_the_workdir(tmp_path):
    trace = Trace(tmp_path, range(1))
    trace.reach(0, lambda: None)
    jnp.ones(3).block_until_ready()
    trace.close()
    for pattern in ("*.xplane.pb", "perfetto_trace.json.gz"):
        assert len(list((tmp_path / FOLDER).rglob(pattern))) == 1


@pytest.mark.fast
def test_losses_without_a_row_are_carried_over():
    """A checkpoint between two steps stores the first one's loss; the resumed run writes the row of both."""
    rows = Rows()
    interval = Interval(rows, Quiet(), 10, batch_size=8)
    interval.append(metrics(loss=0.25))
    with interval.paused() as losses:
        assert losses == [0.25]
    assert not rows
    interval = Interval(rows, Quiet(), 11, batch_size=8, losses=losses)
    interval.append(metrics(loss=0.75))
    interval.flush()
    assert [(step, row["train/loss"]) for step, row in rows] == [(12, 0.5)]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("third", "says"),
    [
        ({"loss": jnp.nan, "finite": False}, r"the loss of step 13 is nan: lower config\.optimizer"),
        (
            {"loss": 0.5, "finite": False},
            r"step 13, with finite loss 0\.5, left .*: lower config\.optimizer",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_divergence_names_the_step(third, says):
    """The steps around it are not written, and the body of the pause does not run."""
    rows = Rows()
    interval = Interval(rows, Quiet(), 10, batch_size=8)
    for step in ({}, {}, third, {"loss": jnp.nan}):
        interval.append(metrics(**step))
    with pytest.raises(DivergedError, match=says), interval.paused():
        rows.write(0, "a checkpoint")
    assert not rows


class Countdown(nn.Module):
    """Predicts class 0 with certainty, from the root of a weight that Adam makes 1.5, 0.5, then negative.

    A negative weight counts as 0, where the loss is finite but its gradient is 0 * infinity.
    """

    num_classes: int
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        BatchNorm(axis=1, name="norm")(x, train=train)
        weight = self.param("weight", nn.initializers.constant(1.5), (1,), jnp.float32)
        certain = 5.0 + jnp.sqrt(jnp.maximum(weight, 0.0))
        return jnp.zeros((len(x), self.num_classes)).at[:, 0].set(certain)


@pytest.mark.usefixtures("quickly_compiled")
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    family = Family(lambda name, **options: Countdown(**options), head="weight")
    monkeypatch.setitem(FAMILIES, "countdown", family)
    config = get_config("steps=6")
    config.prepared_dir, config.augment = str(tmp_path / "prepared"), {}
    config.model, config.optimizer.learning_rate = {"name": "countdown"}, 1.0
    config.optimizer.schedule = "constant"
    config.log_every, config.eval_every, config.save_every = 50, 1, 1
    with pytest.raises(DivergedError, match=r"^step 3, with finite loss"):
        run(config, tmp_path / "run", mode="train", checkpoint="latest", quiet=True)
    saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert saved == {"1", "2"}
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2]
    assert [row["step"] for row in rows if "test/mAP" in row] == [1, 2]

"""The window of steps between two rows of metrics: what its speed is of, and what it takes for diverged."""

import time

import jax.numpy as jnp
import pytest

from rann_jax.train import Window

pytestmark = pytest.mark.fast


class Rows(list):
    """Stands for the writer: what was written, by step."""

    def write(self, step, metrics):
        self.append((step, metrics))


class Quiet:
    """Stands for the progress bar."""

    def advance(self):
        pass

    def report(self, loss, clips_per_second):
        pass


class Clock:
    """Stands for time: stands still unless told."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def tick(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def metrics(loss=1.0):
    return {"loss": jnp.float32(loss), "learning_rate": jnp.float32(1e-3)}


def test_speed_is_of_reading_too_and_of_no_evaluation(clock):
    """8 clips a step; the seconds of a step pass before it is appended, where its batch is waited for."""
    rows = Rows()
    window = Window(rows, Quiet(), 0, batch_size=8)

    def train(seconds):
        clock.tick(seconds)
        window.append(metrics())

    train(2)
    window.flush()  # a step of 2 s
    train(4)
    window.flush()  # a step of 4 s
    train(1)
    with window.paused():  # a step of 1 s, then an evaluation
        clock.tick(100)
    train(3)
    train(5)
    window.flush()  # two steps in 8 s
    assert [step for step, _ in rows] == [1, 2, 3, 5]
    assert [row["time/clips_per_second"] for _, row in rows] == [4, 2, 8, 2]

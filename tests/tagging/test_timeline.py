"""A timeline: its tags, events and table, and what Python itself asks of it."""

import csv
import itertools

import numpy as np
import pytest

from rann_jax.tagging.timeline import Timeline, events_in
from tests.fake_models import Loudness

pytestmark = pytest.mark.fast

STARTS = np.array([0.0, 1.0, 2.0, 3.0])
PROBABILITIES = np.array([[0.9, 0.6], [0.8, 0.2], [0.1, 0.9], [0.7, 0.3]], np.float32)


def made(**changes) -> Timeline:
    return Timeline(STARTS, STARTS + 2, PROBABILITIES, ("dog", "cat"), **changes)


def test_events_are_by_their_starts():
    """By hand: the cat's first event ends before the dog's, which begins at the same time."""
    found = [(e.start, e.stop, e.label, round(e.probability, 6)) for e in made().events(0.5)]
    assert found == [
        (0.0, 2.0, "cat", 0.6),
        (0.0, 3.0, "dog", 0.9),
        (2.0, 4.0, "cat", 0.9),
        (3.0, 5.0, "dog", 0.7),
    ]
    assert [event.start for event in made().events(0.5, top=1)] == [0.0, 2.0, 3.0]
    assert made().events(0.95) == []


def part(first: int, last: int) -> Timeline:
    window = slice(first, last)
    return Timeline(STARTS[window], STARTS[window] + 2, PROBABILITIES[window], ("dog", "cat"))


@pytest.mark.parametrize("cuts", [(0, 4), (0, 1, 4), (0, 2, 3, 4), (0, 1, 2, 3, 4)])
def test_events_of_parts_are_those_of_the_whole(cuts):
    parts = [part(*ends) for ends in itertools.pairwise(cuts)]
    for top in (None, 1):
        assert sorted(events_in(parts, 0.5, top)) == sorted(made().events(0.5, top))


def test_events_of_parts_come_as_soon_as_they_have_ended():
    parts = iter([part(0, 3), part(3, 4)])
    assert next(events_in(parts, 0.5)).label == "cat"
    assert len(next(parts)) == 1  # the second part has not been asked for
    assert list(events_in([], 0.5)) == []


@pytest.mark.parametrize(("threshold", "top"), [(1.5, None), (float("nan"), None), (0.5, 0)])
def test_impossible_choices_are_refused(threshold, top):
    with pytest.raises(ValueError, match="must be at least 1 and threshold"):
        made().events(threshold, top)
    with pytest.raises(ValueError, match="must be at least 1 and threshold"):
        events_in([], threshold, top)


def test_the_top_is_what_tag_returns():
    assert made().top(1) == {"dog": pytest.approx(0.625)}
    assert list(made().top()) == ["dog", "cat"]
    wave = np.random.default_rng(0).uniform(-1, 1, 5000) * np.linspace(0, 1, 5000)
    assert Loudness().timeline(wave, 8000).top() == pytest.approx(Loudness().tag(wave, 8000))
    with pytest.raises(ValueError, match="k=0: it must be at least 1"):
        made().top(0)


def test_the_table(tmp_path):
    made().to_csv(tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text().splitlines()[:2] == [
        "start_seconds,stop_seconds,dog,cat",
        "0.000,2.000,0.900000,0.600000",
    ]
    made(conflict=np.arange(4.0)).to_csv(str(tmp_path / "two.csv"))
    rows = list(csv.DictReader((tmp_path / "two.csv").read_text().splitlines()))
    assert [float(row["conflict"]) for row in rows] == [0, 1, 2, 3]


def test_equality_and_hashes_are_of_the_object():
    """The comparison of fields would ask for the truth value of an array."""
    one = made()
    assert one == one
    assert one != made()
    assert len({one, made()}) == 2


def test_it_says_what_it_is():
    assert repr(made()) == "Timeline(4 windows, 0-5 s, 2 classes)"
    assert len(made()) == 4
    none = np.zeros(0)
    assert repr(Timeline(none, none, np.zeros((0, 2)), ("dog", "cat"))) == "Timeline(0 windows, 2 classes)"
    assert repr(Loudness()) == "Loudness(2 classes, 8000 Hz, windows of 0.1 s)"

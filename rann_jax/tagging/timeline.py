"""Class probabilities of a sound over time, window by window."""

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rann_jax.saved.workdir import replace_atomically
from rann_jax.tagging.events import Choice, Event, Events


class WindowProbabilities(NamedTuple):
    """Class probabilities of W windows and, for an ensemble, how far its models agree.

    Attributes:
      probabilities: (W, C).
      conflict: (W,) how much the models of an ensemble contradict each other, 0..1; None for one model.
      by_model: (W, M, C) probabilities of each model of an ensemble; None for one model.
    """

    probabilities: Any
    conflict: Any = None
    by_model: Any = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Timeline:
    """Class probabilities over time, for a whole sound or a part of it; `len` is the number of windows.

    Two are equal only if they are the same object; compare their arrays.

    Attributes:
      starts: (W,) start of each window, seconds.
      stops: (W,) end of each window, seconds; never beyond the end of the sound.
      probabilities: (W, C) float32.
      labels: (C,) class names.
      conflict, by_model: as in `WindowProbabilities`; None for one model.
    """

    starts: np.ndarray
    stops: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]
    conflict: np.ndarray | None = None
    by_model: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        span = f"{self.starts[0]:.6g}-{self.stops[-1]:.6g} s, " if len(self) else ""
        return f"Timeline({len(self)} windows, {span}{len(self.labels)} classes)"

    def top(self, k: int | None = None) -> dict[str, float]:
        """Return the k classes (None: all) of the highest mean over the windows, the most probable first.

        For a whole sound these are the tags that `Tagger.tag` returns.

        Raises:
          ValueError: there are no windows, or k is below 1.
        """
        if not len(self):
            raise ValueError("a timeline without windows has no mean probabilities")
        return most_probable(self.labels, self.probabilities.mean(axis=0, dtype=np.float64), k)

    def events(self, threshold: float, top: int | None = None) -> list[Event]:
        """Return the runs of consecutive windows in which a class reaches the threshold, by their starts.

        They are those that `rann_jax.predict --audacity` and `--raven` write. An event that goes
        on beyond this part of a sound is cut at its end; `events_in` joins parts.

        Args:
          threshold: least probability, 0 to 1.
          top: how many classes of a window may be in an event, the most probable ones; None means all.

        Raises:
          ValueError: the threshold or `top` is out of range.
        """
        return sorted(events_in([self], threshold, top), key=lambda event: event.start)

    def to_csv(self, path: str | Path) -> None:
        """Write a table that replaces `path`, one row per window, as `rann_jax.predict --csv` does.

        The columns are start_seconds, stop_seconds, for an ensemble conflict, and each class.

        Raises:
          OSError: the file cannot be written.
        """
        with replace_atomically(Path(path)) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(csv_head(self.labels, with_conflict=self.conflict is not None))
            writer.writerows(csv_rows(self))


def events_in(parts: Iterable[Timeline], threshold: float, top: int | None = None) -> Iterator[Event]:
    """Yield the events of one sound whose timeline comes in parts, as soon as they have ended.

    Args:
      parts: consecutive parts of a timeline, as `Tagger.stream` and `stream_file` yield them.
      threshold, top: as for `Timeline.events`.

    Raises:
      ValueError: the threshold or `top` is out of range.
    """
    return _events_in(parts, Choice(top, threshold))


def _events_in(parts: Iterable[Timeline], choice: Choice) -> Iterator[Event]:
    events: Events | None = None
    for part in parts:
        events = events or Events(part.labels, choice)
        yield from events.add(part.starts, part.stops, part.probabilities)
    if events:
        yield from events.rest()


def most_probable(labels: Sequence[str], probabilities: np.ndarray, k: int | None = None) -> dict[str, float]:
    """Return the k most probable classes (None: all) of probabilities (C,), the most probable first.

    Raises:
      ValueError: k is below 1.

    >>> most_probable(("dog", "cat"), np.array([0.25, 0.75]), k=1)
    {'cat': 0.75}
    """
    if k is not None and k < 1:
        raise ValueError(f"k={k}: it must be at least 1")
    order = np.argsort(-probabilities, kind="stable")[:k]
    return {labels[c]: float(probabilities[c]) for c in order}


def csv_head(labels: Sequence[str], *, with_conflict: bool) -> list[str]:
    """Return the names of the columns that `csv_rows` fills."""
    return ["start_seconds", "stop_seconds", *(["conflict"] if with_conflict else []), *labels]


def csv_rows(part: Timeline) -> Iterator[list[str]]:
    """Yield a row of text per window: its start and stop, for an ensemble its conflict, the probabilities."""
    numbers = part.probabilities
    if part.conflict is not None:
        numbers = np.column_stack([part.conflict, numbers])
    for start, stop, row in zip(part.starts, part.stops, numbers, strict=True):
        yield [f"{start:.3f}", f"{stop:.3f}", *(f"{p:.6f}" for p in row)]


def joined(parts: Sequence[Timeline]) -> Timeline:
    """Join consecutive parts, at least one, of one sound."""
    first = parts[0]
    return Timeline(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.stops for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        first.labels,
        None if first.conflict is None else np.concatenate([part.conflict for part in parts]),
        None if first.by_model is None else np.concatenate([part.by_model for part in parts]),
    )


class RunningMean:
    """The tags of a sound, computed as its timeline comes in: the mean over all windows, each counted once.

    >>> mean = RunningMean()
    >>> ends = np.array([1.0])
    >>> mean.add(Timeline(ends - 1, ends, np.array([[0.5, 0.5]]), ("dog", "cat")))
    >>> mean.add(Timeline(ends, ends + 1, np.array([[1.0, 0.0]]), ("dog", "cat")))
    >>> mean.probabilities.tolist(), mean.seconds
    ([0.75, 0.25], 2.0)
    """

    def __init__(self) -> None:
        self.windows = 0
        self.seconds = 0.0
        self._probabilities: np.ndarray | float = 0.0
        self._conflict: float | None = None

    def add(self, part: Timeline) -> None:
        """Add the next windows."""
        self.windows += len(part.starts)
        self.seconds = float(part.stops[-1])
        self._probabilities = self._probabilities + part.probabilities.sum(axis=0, dtype=np.float64)
        if part.conflict is not None:
            self._conflict = (self._conflict or 0.0) + float(part.conflict.sum(dtype=np.float64))

    @property
    def probabilities(self) -> np.ndarray:
        """Mean probabilities (C,) float64; valid after the first `add`."""
        return np.asarray(self._probabilities) / self.windows

    @property
    def conflict(self) -> float | None:
        """Mean conflict of the models; None for one model."""
        return None if self._conflict is None else self._conflict / self.windows

"""Which classes are reported, and when: runs of windows in which a class is probable enough."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Choice:
    """Which classes to report: the `top` most probable (None: all) that reach the threshold.

    Raises:
      ValueError: `top` is below 1, or the threshold is not between 0 and 1.

    >>> Choice(top=2, threshold=0.25).mask(np.array([0.25, 0.5, 0.25, 0.0])).tolist()
    [True, True, False, False]
    """

    top: int | None
    threshold: float

    def __post_init__(self) -> None:
        if not ((self.top is None or self.top >= 1) and 0 <= self.threshold <= 1):
            raise ValueError(
                f"top={self.top} must be at least 1 and threshold={self.threshold:g} between 0 and 1"
            )

    def mask(self, probabilities: np.ndarray) -> np.ndarray:
        """Return which of the probabilities (..., C) are chosen: (..., C) bool."""
        if self.top is None:
            return probabilities >= self.threshold
        order = np.argsort(-probabilities, axis=-1, kind="stable")
        ranks = np.argsort(order, axis=-1, kind="stable")
        return (ranks < self.top) & (probabilities >= self.threshold)

    def ranked(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the indices of the chosen ones of the probabilities (C,), the most probable first."""
        chosen = np.flatnonzero(self.mask(probabilities))
        return chosen[np.argsort(-probabilities[chosen], kind="stable")]


class Event(NamedTuple):
    """A run of consecutive windows in which a class is chosen.

    Attributes:
      start, stop: start of the first window and end of the last, seconds.
      label: the class.
      probability: the highest of the windows' probabilities.
    """

    start: float
    stop: float
    label: str
    probability: float


class Events:
    """Collects the events of a timeline that comes in parts, in the order in which they end."""

    def __init__(self, labels: Sequence[str], choice: Choice):
        self._labels = labels
        self._choice = choice
        self._open: dict[int, Event] = {}

    def add(self, starts: np.ndarray, stops: np.ndarray, probabilities: np.ndarray) -> Iterator[Event]:
        """Yield the events that ended before or in these windows.

        Args:
          starts, stops: (W,) seconds.
          probabilities: (W, C).
        """
        chosen = self._choice.mask(probabilities)
        for w, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            for ended in [c for c in self._open if not chosen[w, c]]:
                yield self._open.pop(ended)
            for c in np.flatnonzero(chosen[w]).tolist():
                p = float(probabilities[w, c])
                before = self._open.get(c, Event(float(start), 0.0, self._labels[c], p))
                self._open[c] = before._replace(stop=float(stop), probability=max(before.probability, p))

    def rest(self) -> Iterator[Event]:
        """Yield the events that last to the end of the sound."""
        yield from self._open.values()

"""Class probabilities of a sound over time, window by window."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


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


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Class probabilities over time, for a whole sound or a part of it.

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

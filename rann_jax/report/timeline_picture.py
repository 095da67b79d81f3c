"""A picture of a tagged file of any length: spectrogram above, class probabilities below.

It is computed while the file is streamed. Each part keeps at most COLUMNS columns; if a file is longer, pairs
of neighbours are merged: powers by their mean, and probabilities by their maximum, so that no short event
vanishes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from rann_jax.features.plot import DYNAMIC_RANGE, INK
from rann_jax.report.mel_columns import Columns, MelColumns
from rann_jax.report.plots import save
from rann_jax.tagging.timeline import Timeline

COLUMNS = 2048
CLASSES = 12  # largest number of classes shown


class TimelinePicture:
    """Collects the data for the picture of one file.

    Args:
      labels: (C,) class names.
      rate: sample rate of the file, Hz.
      highest: the highest frequency that the model receives, Hz.
    """

    def __init__(self, labels: Sequence[str], rate: int, highest: float):
        self._labels = labels
        self._sound = MelColumns(rate, highest, COLUMNS)
        self._probabilities = Columns(COLUMNS, np.maximum)
        self._middle: float | None = None
        self._seconds = 0.0
        self._has_conflict = False

    def watching(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the blocks (n,) of the file unchanged, after adding them to the spectrogram."""
        return self._sound.watching(blocks)

    def add(self, part: Timeline) -> None:
        """Add the next windows; each is drawn around its middle."""
        self._has_conflict = part.conflict is not None
        conflict = np.zeros(len(part.starts)) if part.conflict is None else part.conflict
        rows = np.column_stack([part.probabilities, conflict])
        for middle, row in zip((part.starts + part.stops) / 2, rows, strict=True):
            self._probabilities.add(0.0 if self._middle is None else (self._middle + middle) / 2, row)
            self._middle = float(middle)
        self._seconds = float(part.stops[-1])

    def draw(self, title: str) -> Figure:
        """Draw the picture, after the last part was added."""
        heights = [3.0, 2.2, 0.7] if self._has_conflict else [3.0, 2.2]
        figure = Figure(figsize=(13, 1.3 + sum(heights)), dpi=100, layout="constrained", facecolor="white")
        panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        self._draw_powers(panels[0])
        self._draw_probabilities(panels[1])
        if self._has_conflict:
            self._draw_conflict(panels[2])
        for axes in panels:
            axes.tick_params(colors=INK, labelsize=9, length=3)
            axes.yaxis.label.set_color(INK)
            axes.spines[:].set_visible(False)
        panels[-1].set_xlim(0, self._seconds)
        panels[-1].set_xlabel("seconds", color=INK)
        # A file's name is drawn literally: a dollar sign in it begins no formula.
        panels[0].set_title(title, loc="left", fontsize=12, color=INK, parse_math=False)
        return figure

    def _draw_powers(self, axes: Axes) -> None:
        begins, decibels = self._sound.decibels()
        peak = float(decibels.max())
        drawn = self._mesh(axes, begins, decibels, "magma", peak - DYNAMIC_RANGE, peak)
        ticks = self._sound.ticks()
        axes.set_yticks([row for _, row in ticks], [f"{hz:g}" for hz, _ in ticks])
        axes.set_ylabel("frequency (Hz)")
        axes.figure.colorbar(drawn, ax=axes, pad=0.01, label="dB").outline.set_visible(False)

    def _draw_probabilities(self, axes: Axes) -> None:
        values = np.array(self._probabilities.values)[:, :-1]
        shown = np.argsort(-values.max(axis=0), kind="stable")[:CLASSES]
        drawn = self._mesh(axes, self._probabilities.begins, values[:, shown], "viridis", 0.0, 1.0)
        axes.set_yticks(range(len(shown)), [self._labels[c] for c in shown], parse_math=False)
        axes.invert_yaxis()
        axes.figure.colorbar(drawn, ax=axes, pad=0.01, label="probability").outline.set_visible(False)

    def _draw_conflict(self, axes: Axes) -> None:
        values = np.array(self._probabilities.values)[:, -1]
        edges = [*self._probabilities.begins, self._seconds]
        axes.stairs(values, edges, fill=True, color="#b5533c")
        axes.set(ylim=(0, 1), ylabel="conflict")

    def _mesh(
        self, axes: Axes, begins: Sequence[float], values: np.ndarray, colours: str, low: float, high: float
    ) -> QuadMesh:
        """Draw values (columns, rows); the last column lasts to the end."""
        edges = np.append(begins, max(self._seconds, begins[-1] + 1e-6))
        rows = np.arange(values.shape[1] + 1) - 0.5
        return axes.pcolormesh(edges, rows, values.T, cmap=colours, vmin=low, vmax=high, rasterized=True)


@contextmanager
def picture_file(path: Path, picture: TimelinePicture, title: str) -> Iterator[Callable[[Timeline], None]]:
    """Yield a function that adds windows; write the picture at the end, as files of tags are written."""
    yield picture.add
    save(picture.draw(title), path)

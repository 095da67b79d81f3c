"""A picture of a tagged file of any length: spectrogram above, class probabilities below.

It is made while the file is heard. At most COLUMNS columns are kept of either; where a file is longer, two
neighbours become one: the mean of the powers, the greatest of the probabilities, so that no short event
vanishes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import librosa
import numpy as np
import scipy.fft
from matplotlib.figure import Figure

from rann_jax.report.plots import INK, save
from rann_jax.timeline import Timeline

COLUMNS = 2048
MEL_BANDS = 96
FRAME_SECONDS = 0.046  # (ours) 2048 samples at 44.1 kHz
DYNAMIC_RANGE = 80.0  # dB shown below the loudest cell
CLASSES = 12  # at most as many rows of classes


class Columns:
    """Columns of numbers over time, never more than `limit` of them.

    >>> columns = Columns(2, np.maximum)
    >>> for second in range(5):
    ...     columns.add(second, np.array([second]))
    >>> columns.begins, [int(column[0]) for column in columns.values]
    ([0, 4], [3, 4])
    """

    def __init__(self, limit: int, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]):
        self.begins: list[float] = []
        self.values: list[np.ndarray] = []
        self.counts: list[int] = []
        self._limit, self._combine, self._full = limit, combine, 1

    def add(self, begin: float, value: np.ndarray) -> None:
        """What follows from `begin` on, in seconds."""
        if self.counts and self.counts[-1] < self._full:
            self.values[-1] = self._combine(self.values[-1], value)
            self.counts[-1] += 1
            return
        if len(self.values) == self._limit:
            pairs = zip(self.values[::2], self.values[1::2], strict=True)
            self.values = [self._combine(a, b) for a, b in pairs]
            self.begins = self.begins[::2]
            self._full *= 2
            self.counts = [self._full] * len(self.values)
        self.begins.append(begin)
        self.values.append(value)
        self.counts.append(1)


class TimelinePicture:
    """Gathers what there is to draw about one file.

    Args:
      labels: (C,) class names.
      rate: of the file, Hz.
      highest: the highest frequency that the model hears, Hz.
    """

    def __init__(self, labels: Sequence[str], rate: int, highest: float):
        self._labels = labels
        self._rate = rate
        self._n_fft = 1 << max(4, round(np.log2(rate * FRAME_SECONDS)))
        self._fmax = min(highest, rate / 2)
        self._mel = librosa.filters.mel(sr=rate, n_fft=self._n_fft, n_mels=MEL_BANDS, fmax=self._fmax)
        self._window = np.hanning(self._n_fft + 1)[:-1].astype(np.float32)
        self._powers = Columns(COLUMNS, np.add)
        self._probabilities = Columns(COLUMNS, np.maximum)
        self._left = np.zeros(0, np.float32)
        self._frames = 0
        self._middle: float | None = None
        self._seconds = 0.0
        self._has_conflict = False

    def watching(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks (n,) of the file as they are, seen on their way."""
        for block in blocks:
            self._see(block)
            yield block

    def add(self, part: Timeline) -> None:
        """The next windows; each is drawn around its middle."""
        self._has_conflict = part.conflict is not None
        conflict = np.zeros(len(part.starts)) if part.conflict is None else part.conflict
        rows = np.column_stack([part.probabilities, conflict])
        for middle, row in zip((part.starts + part.stops) / 2, rows, strict=True):
            self._probabilities.add(0.0 if self._middle is None else (self._middle + middle) / 2, row)
            self._middle = float(middle)
        self._seconds = float(part.stops[-1])

    def _see(self, block: np.ndarray) -> None:
        size, hop = self._n_fft, self._n_fft // 2
        sound = np.concatenate([self._left, block])
        if len(sound) < size:
            self._left = sound
            return
        frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
        power = np.square(np.abs(scipy.fft.rfft(frames * self._window, axis=-1))) @ self._mel.T
        for column in power:
            self._powers.add(self._frames * hop / self._rate, column)
            self._frames += 1
        self._left = sound[len(frames) * hop :].copy()

    def draw(self, title: str) -> Figure:
        """The picture, after the last part."""
        if not self._frames:  # shorter than a frame
            self._see(np.zeros(self._n_fft, np.float32))
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
        # A file's name is drawn as it is: a dollar sign in it begins no formula.
        panels[0].set_title(title, loc="left", fontsize=12, color=INK, parse_math=False)
        return figure

    def _draw_powers(self, axes) -> None:
        power = np.array(self._powers.values) / np.array(self._powers.counts)[:, None]
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        peak = float(decibels.max())
        drawn = self._mesh(axes, self._powers, decibels, "magma", peak - DYNAMIC_RANGE, peak)
        centers = librosa.mel_frequencies(MEL_BANDS + 2, fmax=self._fmax)[1:-1]
        ticks = [hz for hz in (250, 500, 1000, 2000, 4000, 8000, 16000) if hz < centers[-1]]
        axes.set_yticks(np.interp(ticks, centers, np.arange(MEL_BANDS)), [f"{hz:g}" for hz in ticks])
        axes.set_ylabel("frequency (Hz)")
        axes.figure.colorbar(drawn, ax=axes, pad=0.01, label="dB").outline.set_visible(False)

    def _draw_probabilities(self, axes) -> None:
        values = np.array(self._probabilities.values)[:, :-1]
        shown = np.argsort(-values.max(axis=0), kind="stable")[:CLASSES]
        drawn = self._mesh(axes, self._probabilities, values[:, shown], "viridis", 0.0, 1.0)
        axes.set_yticks(range(len(shown)), [self._labels[c] for c in shown], parse_math=False)
        axes.invert_yaxis()
        axes.figure.colorbar(drawn, ax=axes, pad=0.01, label="probability").outline.set_visible(False)

    def _draw_conflict(self, axes) -> None:
        values = np.array(self._probabilities.values)[:, -1]
        edges = [*self._probabilities.begins, self._seconds]
        axes.stairs(values, edges, fill=True, color="#b5533c")
        axes.set(ylim=(0, 1), ylabel="conflict")

    def _mesh(self, axes, columns: Columns, values: np.ndarray, colours: str, low: float, high: float):
        """Draw values (columns, rows); the last column lasts to the end."""
        edges = np.append(columns.begins, max(self._seconds, columns.begins[-1] + 1e-6))
        rows = np.arange(values.shape[1] + 1) - 0.5
        return axes.pcolormesh(edges, rows, values.T, cmap=colours, vmin=low, vmax=high, rasterized=True)


@contextmanager
def picture_file(path: Path, picture: TimelinePicture, title: str) -> Iterator[Callable[[Timeline], None]]:
    """Write the picture of one file, as tag_output's files are written."""
    yield picture.add
    save(picture.draw(title), path)

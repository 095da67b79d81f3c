"""Pictures of results, drawn with Matplotlib's Figure without pyplot: no window, no global state."""

import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.colors import TABLEAU_COLORS
from matplotlib.figure import Figure

from rann_jax.features.plot import INK
from rann_jax.report.markup import visible
from rann_jax.saved.workdir import replace_atomically

DPI = 110
MAX_ROWS = 256  # (ours) rows of a heat map: all subsets of eight models; Matplotlib's limit is 2^16 pixels


class Line(NamedTuple):
    """A curve; the curves of a group have one colour and one legend entry."""

    group: str
    steps: Sequence[int]
    values: Sequence[float]


def short(text: object, length: int = 24) -> str:
    r"""Return text for a picture: on one line, shortened, with dollar signs that begin no formula.

    >>> short("a $ sign and a tail too long to be drawn", 12)
    'a \\$ sign an…'
    """
    line = " ".join(visible(text).split())
    line = line if len(line) <= length else line[: length - 1] + "…"
    return line.replace("$", r"\$")


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure of `count` axes, each of `size` (inches), in rows of at most `columns`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=DPI, layout="constrained")
    figure.set_facecolor("white")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.remove()
    return figure, list(grid[:count])


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """Draw a coloured table with its numbers: values (len(rows), len(columns)), NaN left white.

    Of more than MAX_ROWS rows, only those with the greatest values are drawn, and the title says so.
    """
    if len(rows) > MAX_ROWS:
        best = np.where(np.isnan(values), -np.inf, values).max(axis=1)
        chosen = np.sort(np.argsort(-best, kind="stable")[:MAX_ROWS])
        title = f"the best {MAX_ROWS} of {len(rows)}: {title}"
        values, rows = values[chosen], [rows[i] for i in chosen]
    rows, columns = [short(name, 60) for name in rows], [short(name) for name in columns]
    size = (2.2 + 0.12 * max(map(len, rows)) + 0.8 * len(columns), 1.2 + 0.28 * len(rows))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    defined = values[np.isfinite(values)]
    low, high = (defined.min(), defined.max()) if defined.size else (0.0, 1.0)
    drawn = axes.imshow(np.ma.masked_invalid(values), aspect="auto", cmap="viridis", vmin=low, vmax=high)
    middle = 0.5 * (low + high)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value <= middle else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(colors=INK, labelsize=9, length=0, top=True, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    _title(axes, short(title, 80))
    figure.colorbar(drawn, ax=axes, pad=0.02, fraction=0.05).outline.set_visible(False)
    return figure


def curves(lines: Mapping[str, Sequence[Line]]) -> Figure:
    """Draw values over steps, in one panel per title."""
    figure, axes = panels(len(lines), 2, size=(5.2, 3.0))
    groups = list(dict.fromkeys(line.group for panel in lines.values() for line in panel))
    colours = dict(zip(groups, itertools.cycle(TABLEAU_COLORS), strict=False))
    for panel, (title, drawn) in zip(axes, lines.items(), strict=True):
        for line in drawn:
            # A single value is visible only as a marker.
            marker = "o" if len(line.steps) < 30 else ""
            panel.plot(line.steps, line.values, marker=marker, ms=3, lw=1.3, color=colours[line.group])
        _title(panel, short(title, 60))
        panel.set_xlabel("step", color=INK)
        panel.grid(color="#e6eaed", linewidth=0.7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=INK, labelsize=9)
        shown = list(dict.fromkeys(line.group for line in drawn))
        if len(shown) > 1:
            handles = [panel.plot([], [], color=colours[name])[0] for name in shown]
            panel.legend(handles, [short(name) for name in shown], fontsize=8, frameon=False)
    return figure


def confusion(counts: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Draw counts (C, C), rows true and columns predicted, coloured by their share of the row."""
    side = 2.4 + 0.24 * len(labels)
    figure = Figure(figsize=(side + 0.8, side), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            colour = "white" if share[i, j] > 0.5 else INK
            axes.text(j, i, str(int(count)), ha="center", va="center", fontsize=7, color=colour)
    names = [short(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.set(xlabel="predicted", ylabel="true")
    axes.spines[:].set_color("#d5dbe0")
    _title(axes, short(title, 80))
    return figure


def bars(values: Mapping[str, np.ndarray], labels: Sequence[str], title: str) -> Figure:
    """Draw measures (C,) between 0 and 1, one group of horizontal bars per class, in the given order."""
    figure = Figure(figsize=(9, 1.3 + 0.3 * len(labels)), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots()
    height = 0.8 / len(values)
    places = np.arange(len(labels))
    for number, (name, value) in enumerate(values.items()):
        colour = list(TABLEAU_COLORS)[number]
        axes.barh(
            places + (number + 0.5) * height - 0.4, np.nan_to_num(value), height, label=name, color=colour
        )
    axes.set_yticks(places, [short(label, 30) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(axis="x", color="#e6eaed", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(1, 0))
    _title(axes, short(title, 80))
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as png."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the page also has it as text.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(file, format="png")
    return file.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as png."""
    with replace_atomically(path, "wb") as file:
        file.write(png(figure))


def stacked(pictures: Sequence[bytes]) -> bytes:
    """Return one png with the pictures one below the other, on white."""
    arrays = [image.imread(io.BytesIO(picture))[..., :3] for picture in pictures]
    width = max(array.shape[1] for array in arrays)
    padded = [np.pad(a, ((0, 20), (0, width - a.shape[1]), (0, 0)), constant_values=1) for a in arrays]
    file = io.BytesIO()
    image.imsave(file, np.concatenate(padded), format="png")
    return file.getvalue()


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK)

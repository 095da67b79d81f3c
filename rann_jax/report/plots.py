"""Pictures of results, on Matplotlib's Figure without pyplot: no window, no global state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rann_jax.workdir import replace_atomically

INK = "#22303c"


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str) -> Figure:
    """A table in colours, its numbers written in: values (len(rows), len(columns)), NaN left white."""
    size = (2.2 + 0.12 * max(map(len, rows)) + 0.8 * len(columns), 1.2 + 0.28 * len(rows))
    figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots()
    shades = np.ma.masked_invalid(values)
    drawn = axes.imshow(shades, aspect="auto", cmap="viridis")
    middle = 0.5 * (float(shades.min()) + float(shades.max()))
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value <= middle else "black"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(colors=INK, labelsize=9, length=0, top=True, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    figure.colorbar(drawn, ax=axes, pad=0.02, fraction=0.05).outline.set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a png."""
    with replace_atomically(path, "wb") as file:
        figure.savefig(file, format="png")

"""What is written about a tagged file: table, JSON, CSV, Audacity labels, Raven selections."""

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rann_jax.tagger import Timeline

BAR = 30  # characters of a full bar
EIGHTHS = " ▏▎▍▌▋▊▉█"
SUFFIX = {"audacity": ".txt", "raven": ".selections.txt"}


@dataclass(frozen=True)
class Tagged:
    """A file and its class probabilities over time."""

    path: Path
    timeline: Timeline

    def tags(self, top: int, threshold: float) -> list[tuple[str, float]]:
        """The `top` most probable classes of the whole file that reach the threshold."""
        mean = self.timeline.probabilities.mean(axis=0, dtype=np.float64)
        order = np.argsort(-mean, kind="stable")[:top]
        return [(self.timeline.labels[c], float(mean[c])) for c in order if mean[c] >= threshold]

    def as_json(self, top: int, threshold: float) -> dict[str, Any]:
        """File, length in seconds, tags."""
        tags = [{"label": label, "probability": round(p, 6)} for label, p in self.tags(top, threshold)]
        seconds = round(float(self.timeline.stops[-1]), 3)
        return {"file": str(self.path), "seconds": seconds, "tags": tags}

    def as_table(self, top: int, threshold: float) -> str:
        """A heading and a bar for every tag; coloured where stdout is a terminal and NO_COLOR is unset."""
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        tags = self.tags(top, threshold)
        width = max((len(label) for label, _ in tags), default=0)
        lines = [f"{self.path}  ({self.timeline.stops[-1]:.2f} s)"]
        for label, p in tags:
            drawn = bar(p)
            lines.append(f"  {label:<{width}} {p:6.3f} " + (f"\033[36m{drawn}\033[0m" if coloured else drawn))
        return "\n".join(lines)

    def as_labels(self, kind: str, top: int, threshold: float) -> str:
        """The events of the file as an Audacity label track or a Raven selection table."""
        events = list(self.events(top, threshold))
        if kind == "audacity":
            return "".join(f"{a:.6f}\t{b:.6f}\t{label} {p:.2f}\n" for a, b, label, p in events)
        head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tSpecies\tScore\n"
        return head + "".join(
            f"{i}\tSpectrogram 1\t1\t{a:.6f}\t{b:.6f}\t{label}\t{p:.4f}\n"
            for i, (a, b, label, p) in enumerate(events, start=1)
        )

    def events(self, top: int, threshold: float) -> Iterator[tuple[float, float, str, float]]:
        """(start, stop, label, highest probability) of stretches of windows in which a class is chosen.

        A class is chosen in a window where it is among the `top` and reaches the threshold.
        """
        line = self.timeline
        ranks = np.argsort(np.argsort(-line.probabilities, axis=1, kind="stable"), axis=1, kind="stable")
        chosen = (ranks < top) & (line.probabilities >= threshold)
        found = []
        for c in np.flatnonzero(chosen.any(axis=0)):
            edges = np.flatnonzero(np.diff(np.pad(chosen[:, c].astype(np.int8), 1)))
            for first, end in zip(edges[::2], edges[1::2], strict=True):
                peak = float(line.probabilities[first:end, c].max())
                found.append((float(line.starts[first]), float(line.stops[end - 1]), line.labels[c], peak))
        yield from sorted(found)


def bar(p: float) -> str:
    """A bar for a probability, in eighths of a character.

    >>> bar(0.5)
    '███████████████'
    """
    full, eighth = divmod(round(p * BAR * 8), 8)
    return ("█" * full + EIGHTHS[eighth]).rstrip()


def csv_rows(tagged: Tagged) -> list[list[str]]:
    """One row for each window: file, start, stop, probabilities."""
    line = tagged.timeline
    return [
        [str(tagged.path), f"{a:.3f}", f"{b:.3f}", *(f"{p:.6f}" for p in row)]
        for a, b, row in zip(line.starts, line.stops, line.probabilities, strict=True)
    ]


def csv_text(labels: Sequence[str], rows: list[list[str]]) -> str:
    """The rows under a heading."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["file", "start_seconds", "stop_seconds", *labels], *rows])
    return text.getvalue()


def file_name(path: Path, kind: str) -> str:
    """Name of a file's labels; the suffix stays, so that a.wav and a.ogg do not meet."""
    return path.name + SUFFIX[kind]

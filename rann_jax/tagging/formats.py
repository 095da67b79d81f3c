"""Formats of the tags of a file: table, JSON, CSV, Audacity labels, Raven selections.

Outputs over time are written while the file is read. Each is a context manager that yields a function to call
with the next part of the timeline. If the file turns out to be damaged, nothing of it is left.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from input_pipeline.source import unwritable
from rann_jax.saved.workdir import replace_atomically
from rann_jax.tagging.events import Choice, Event, Events
from rann_jax.tagging.timeline import Timeline, csv_head, csv_rows

BAR = 30  # characters in a full bar
EIGHTHS = " ▏▎▍▌▋▊▉█"
SUFFIX = {"audacity": ".txt", "raven": ".selections.txt", "picture": ".png"}
RAVEN_HEAD = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tSpecies\tScore\n"

Write = Callable[[Timeline], None]


@dataclass(frozen=True)
class Tagged:
    """A whole file and its tags.

    Attributes:
      path: the file.
      seconds: length of the file.
      labels: (C,) class names.
      probabilities: (C,) mean over the file's windows.
      conflict: mean conflict of an ensemble's models over the windows; None for one model.
    """

    path: Path
    seconds: float
    labels: tuple[str, ...]
    probabilities: np.ndarray
    conflict: float | None = None

    def tags(self, choice: Choice) -> list[tuple[str, float]]:
        """Return the chosen classes with their probabilities, the most probable first."""
        return [(self.labels[c], float(self.probabilities[c])) for c in choice.ranked(self.probabilities)]

    def as_json(self, choice: Choice) -> dict[str, Any]:
        """Return file, length in seconds and tags; for an ensemble also its conflict."""
        tags = tags_as_json(self.labels, self.probabilities, choice)
        row = {"file": shown(self.path), "seconds": round(self.seconds, 3), "tags": tags}
        return row if self.conflict is None else row | {"conflict": round(self.conflict, 6)}

    def as_table(self, choice: Choice) -> str:
        """Return a heading and a bar per tag, coloured if stdout is a terminal and NO_COLOR is not set."""
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        tags = self.tags(choice)
        width = max((len(label) for label, _ in tags), default=0)
        about = f"{self.seconds:.2f} s"
        if self.conflict is not None:
            about += f", conflict {self.conflict:.3f}"
        lines = [f"{shown(self.path)}  ({about})"]
        for label, p in tags:
            drawn = bar(p)
            lines.append(f"  {label:<{width}} {p:6.3f} " + (f"\033[36m{drawn}\033[0m" if coloured else drawn))
        return "\n".join(lines)


def tags_as_json(labels: Sequence[str], probabilities: np.ndarray, choice: Choice) -> list[dict[str, Any]]:
    """Return the chosen classes of probabilities (C,), the most probable first.

    >>> tags_as_json(("dog", "cat"), np.array([0.25, 0.75]), Choice(top=1, threshold=0))
    [{'label': 'cat', 'probability': 0.75}]
    """
    return [
        {"label": labels[c], "probability": round(float(probabilities[c]), 6)}
        for c in choice.ranked(probabilities)
    ]


@contextmanager
def label_file(path: Path, kind: str, labels: Sequence[str], choice: Choice) -> Iterator[Write]:
    """Write the events of one file as an Audacity label track or a Raven selection table."""
    events = Events(labels, choice)
    with replace_atomically(path) as file:
        line = _audacity_lines(file) if kind == "audacity" else _raven_lines(file)

        def write(part: Timeline) -> None:
            for event in events.add(part.starts, part.stops, part.probabilities):
                line(event)

        yield write
        for event in events.rest():
            line(event)


def _audacity_lines(file: IO[str]) -> Callable[[Event], None]:
    return lambda e: print(f"{e.start:.6f}\t{e.stop:.6f}\t{e.label} {e.probability:.2f}", file=file)


def _raven_lines(file: IO[str]) -> Callable[[Event], None]:
    file.write(RAVEN_HEAD)
    numbers = iter(range(1, sys.maxsize))

    def line(e: Event) -> None:
        where = f"{next(numbers)}\tSpectrogram 1\t1\t{e.start:.6f}\t{e.stop:.6f}"
        print(f"{where}\t{e.label}\t{e.probability:.4f}", file=file)

    return line


class CsvTable:
    """A table with one row per window: file, start, stop, the conflict of an ensemble, probabilities.

    Attributes:
      files: number of files in the table.
    """

    def __init__(self, file: IO[str], labels: Sequence[str], *, with_conflict: bool):
        self.files = 0
        self._file = file
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(["file", *csv_head(labels, with_conflict=with_conflict)])

    @contextmanager
    def rows_of(self, path: Path) -> Iterator[Write]:
        """Write the rows of one file; they are removed again if it turns out to be damaged."""
        before, name = self._file.tell(), shown(path)

        def write(part: Timeline) -> None:
            self._writer.writerows([name, *row] for row in csv_rows(part))

        try:
            yield write
        except BaseException:
            self._file.seek(before)
            self._file.truncate()
            raise
        self.files += 1


@contextmanager
def csv_table(path: Path, labels: Sequence[str], *, with_conflict: bool) -> Iterator[CsvTable]:
    """Write a table that replaces `path` when it is complete.

    If stopped earlier, the rows of the files tagged so far are kept as PATH.partial, with a note on stderr.
    """
    with replace_atomically(path) as file:
        table = CsvTable(file, labels, with_conflict=with_conflict)
        try:
            yield table
        except BaseException:
            if table.files:
                file.flush()  # fails on a full disk; then nothing is kept, as it would end within a row
                partial = path.with_name(f"{path.name}.partial")
                Path(file.name).replace(partial)
                print(
                    f"note: {partial} has the rows so far (files: {table.files}); {path} is as before",
                    file=sys.stderr,
                )
            raise


def bar(p: float) -> str:
    """Return a bar for a probability, in eighths of a character.

    >>> bar(0.5)
    '███████████████'
    """
    full, eighth = divmod(round(p * BAR * 8), 8)
    return ("█" * full + EIGHTHS[eighth]).rstrip()


def shown(path: str | Path) -> str:
    r"""Return a path as one line of text.

    Bytes that are not UTF-8 become escapes, and so do control characters, which a terminal might obey.

    >>> print(shown(os.fsdecode(b"caf\xe9\n.wav")))
    caf\xe9\n.wav
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        character.encode("unicode_escape").decode() if unwritable(character) else character
        for character in text
    )


def output_path(place: Path, kind: str) -> Path:
    """Return the output path for a sound, relative to the output folder, as its `place` is.

    It keeps the sound's suffix, so that a.wav and a.ogg do not collide.

    >>> output_path(Path("east/a.wav"), "audacity").as_posix()
    'east/a.wav.txt'
    """
    return place.with_name(place.name + SUFFIX[kind])

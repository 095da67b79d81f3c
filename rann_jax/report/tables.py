"""Tables of named values: csv with every digit, and markdown for reading."""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import replace_atomically

Row = Mapping[str, Any]

MAX_ROWS = 100_000  # read from a csv


def write(out: Path, name: str, rows: Sequence[Row]) -> str:
    """Write NAME.csv and NAME.md, which is `readable`, to the folder `out`; return the latter's text."""
    write_csv(out / f"{name}.csv", rows)
    text = readable(rows)
    write_markdown(out / f"{name}.md", text)
    return text


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that have the same keys; undefined numbers become empty cells."""
    with replace_atomically(path) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if _undefined(v) else v for k, v in row.items()} for row in rows)


def markdown(rows: Sequence[Row]) -> str:
    """Return a markdown table of rows that have the same keys; numbers have three decimals, as in the deck.

    >>> print(markdown([{"feature": "log_mel", "accuracy": 0.87849}]))
    | feature | accuracy |
    | --- | --- |
    | log_mel | 0.878 |
    """
    body = [[cell(value).replace("|", "\\|") for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(rows[0]), ["---"] * len(rows[0]), *body))


def readable(rows: Sequence[Row]) -> str:
    """Return rows as a markdown table with intervals in brackets; see `with_intervals`."""
    return markdown([with_intervals(row) for row in rows])


def write_markdown(path: Path, table: str) -> None:
    """Write a markdown table to a file."""
    with replace_atomically(path) as file:
        file.write(table + "\n")


def read_csv(path: Path, *, text: Sequence[str], numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read the rows that `write_csv` wrote; cells outside the columns `text` are numbers, NaN if empty.

    Raises:
      ConfigError: the file does not exist, has no rows, lacks a column of `text` or `numbers`, or has a cell
        that is not a number where one is expected.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            read = list(itertools.islice(csv.DictReader(file, strict=True), MAX_ROWS))
        rows = [{k: v if k in text else float(v or "nan") for k, v in row.items()} for row in read]
        if not rows or any(rows[0].get(name) is None for name in (*text, *numbers)):
            raise ValueError(f"it lacks the columns {', '.join((*text, *numbers))}")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(
            f"{path} is not a table of results: {error}: run rann_jax.crossval again"
        ) from error
    return rows


def with_intervals(row: Row) -> dict[str, str]:
    """Return the row as text, with the ends of intervals, NAME_low and NAME_high, in brackets after NAME.

    >>> with_intervals({"rule": "wa", "F1": 0.5, "F1_low": 0.4, "F1_high": 0.6})
    {'rule': 'wa', 'F1': '0.500 [0.400, 0.600]'}
    """
    shown = {}
    for name, value in row.items():
        if name.removesuffix("_low").removesuffix("_high") != name:
            continue
        ends = ", ".join(filter(None, (cell(row.get(f"{name}_{end}")) for end in ("low", "high"))))
        shown[name] = cell(value) + (f" [{ends}]" if ends else "")
    return shown


def cell(value: Any) -> str:
    """Return one value as text, a number with three decimals.

    >>> cell(0.0004), cell(0.0), cell(12)
    ('<0.001', '0.000', '12')
    """
    if _undefined(value):
        return ""
    if not isinstance(value, float):
        return str(value)
    return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def _undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))

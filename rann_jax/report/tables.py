"""Rows of named values as csv, with every digit, and as markdown, to be read."""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rann_jax.errors import ConfigError
from rann_jax.workdir import replace_atomically

Row = Mapping[str, Any]

MAX_ROWS = 100_000  # of a csv that is read


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows that have the same keys; undefined numbers become empty cells."""
    with replace_atomically(path) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if _undefined(v) else v for k, v in row.items()} for row in rows)


def markdown(rows: Sequence[Row]) -> str:
    """A markdown table of rows that have the same keys; numbers to three decimals, as in the deck.

    >>> print(markdown([{"feature": "log_mel", "accuracy": 0.87849}]))
    | feature | accuracy |
    | --- | --- |
    | log_mel | 0.878 |
    """
    body = [[cell(value).replace("|", "\\|") for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(rows[0]), ["---"] * len(rows[0]), *body))


def write_markdown(path: Path, table: str) -> None:
    """Write what `markdown` gave."""
    with replace_atomically(path) as file:
        file.write(table + "\n")


def read_csv(path: Path, *, text: Sequence[str], numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows that `write_csv` wrote: numbers, NaN where a cell is empty, but for the columns of text.

    Raises:
      ConfigError: the file is not there, has no rows, or lacks a column of `text` or `numbers`, or a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            read = list(itertools.islice(csv.DictReader(file, strict=True), MAX_ROWS))
        rows = [{k: v if k in text else float(v or "nan") for k, v in row.items()} for row in read]
        if not rows or any(rows[0].get(name) is None for name in (*text, *numbers)):
            raise ValueError(f"it has not the columns {', '.join((*text, *numbers))}")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(f"{path} is not a table of results: {error}: write it again") from error
    return rows


def with_intervals(row: Row) -> dict[str, str]:
    """The row as text, the ends of intervals, NAME_low and NAME_high, in brackets behind NAME.

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
    """One value as text."""
    if _undefined(value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))

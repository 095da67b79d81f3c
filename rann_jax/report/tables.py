"""Rows of named values as csv, with every digit, and as markdown, to be read."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rann_jax.workdir import replace_atomically

Row = Mapping[str, Any]


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
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(v) for v in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    """One value as text."""
    if _undefined(value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))

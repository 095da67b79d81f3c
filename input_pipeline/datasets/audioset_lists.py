"""AudioSet's official lists: its classes, and the segments of videos with their classes."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from input_pipeline.errors import DataError
from input_pipeline.source import check_classes, read_table, table_bytes


def class_names(path: Path, classes: int) -> dict[str, str]:
    """Return display names by machine id such as '/m/09x0r', in the order of the official indices.

    Raises:
      DataError: the file is not a list of this many classes.
    """
    rows = read_table(path, ("index", "mid", "display_name"))
    names = {row["mid"]: row["display_name"] for row in rows}
    if [row["index"] for row in rows] != [str(i) for i in range(classes)] or len(names) != classes:
        raise DataError(
            f"{path} is not AudioSet's list of {classes} classes: use the official one, or set "
            "config.dataset.classes for a list of your own"
        )
    check_classes(list(names.values()), f"{path}, column display_name")
    return names


def segments(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a segment list: id, start and end in seconds, labels. Comments begin with '#'.

    Raises:
      DataError: the file is not a list of segments; the message names the line.
    """
    try:
        reader = csv.reader(
            io.StringIO(table_bytes(path).decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True
        )
        for row in reader:
            if not row or row[0].startswith("#"):
                continue
            if len(row) != 4 or not row[0] or not _lasts(row[1], row[2]):
                raise DataError(
                    f"{path}, line {reader.line_num}: expected id, start and end in seconds, labels"
                )
            yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv table in UTF-8: {error}") from error


def _lasts(start: str, end: str) -> bool:
    try:
        return 0 <= float(start) < float(end) < float("inf")
    except ValueError:
        return False

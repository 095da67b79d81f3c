"""Tables beside the sounds of a folder: whether one lists the clips, or is about something else."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from input_pipeline.source import composed, table_bytes

DELIMITERS = ",;\t"  # where numbers have decimal commas, spreadsheets write semicolons


def others(
    folder: Path,
    tables: Sequence[str],
    needed: Sequence[Collection[str]],
    clips: Collection[str],
    *,
    may_be_none: bool,
) -> list[str]:
    """Return the tables that list no clips: a required column is missing and no column mostly names clips.

    Args:
      folder: where the tables are.
      tables: their names.
      needed: the columns of a table of clips, each by its possible names.
      clips: the paths of the clips in the folder.
      may_be_none: whether the classes are known without a table. If not, and no table has the columns, none
        is returned, since one should have had them.
    """
    columns = {table: skim(folder / table) for table in tables}
    suited = [table for table in tables if has_columns(columns[table], needed)]
    if not suited and not may_be_none:
        return []
    return [table for table in tables if table not in suited and not names_clips(columns[table], clips)]


def skim(path: Path) -> list[tuple[str, ...]]:
    """Return the columns of a table, each with its name first; [] if there are none.

    The table may be meant for another program. So, unlike `source.read_table`, this accepts any encoding and
    rows of any length.
    """
    text = table_bytes(path).decode("utf-8-sig", errors="replace")
    try:
        tables = [list(csv.reader(io.StringIO(text, newline=""), delimiter=mark)) for mark in DELIMITERS]
    except csv.Error:
        return []
    return list(zip_longest(*max(tables, key=lambda rows: len(rows[0]) if rows else 0), fillvalue=""))


def has_columns(columns: Iterable[tuple[str, ...]], needed: Sequence[Collection[str]]) -> bool:
    """Return whether, for each of `needed`, a column has one of those names."""
    names = {name for name, *_ in columns}
    return all(not names.isdisjoint(some) for some in needed)


def names_clips(columns: Iterable[tuple[str, ...]], clips: Iterable[str]) -> bool:
    """Return whether most values of a column are paths of clips, or their names with or without suffix."""
    paths = [PurePosixPath(composed(clip)) for clip in clips]
    known = {form for path in paths for form in (str(path), str(path.with_suffix("")), path.name, path.stem)}
    for _, *values in columns:
        given = [composed(value.replace("\\", "/")) for value in values if value]
        if 2 * sum(value in known for value in given) > len(given):
            return True
    return False

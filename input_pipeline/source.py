"""The source files of a data set: finding them and reading tables."""

import csv
import errno
import hashlib
import io
import os
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from input_pipeline.audio import SUFFIXES, how_to_convert
from input_pipeline.errors import DataError

# Tables are read whole and identified by their content; other files are identified by size and time.
TABLE_SUFFIXES = frozenset([".csv", ".txt"])

# Unicode categories that a line of text cannot hold: controls, ends of lines and paragraphs, bytes that are
# not UTF-8.
_UNWRITABLE = ("Cc", "Zl", "Zp", "Cs")

# The largest official table (AudioSet's unbalanced segments) has 100 MB.
_MAX_TABLE_BYTES = 1 << 30


class Stamp(NamedTuple):
    """Size and time of a file, to detect changes without reading it; equally long clips have equal sizes."""

    bytes: int
    modified_ns: int


# The stamp of a link to no file; the clip is rejected when it is read, as a file that cannot be decoded is.
_LINK_TO_NOTHING = Stamp(-1, 0)


def leads_nowhere(path: Path) -> bool:
    """Return whether a path is a link to a file that does not exist."""
    try:
        path.stat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and path.is_symlink()
    return False


def scan(folder: Path, also: Set[str] = frozenset({".csv"})) -> dict[str, Stamp]:
    """Return the stamps of sound files, and files with the suffixes `also`, below a folder, sorted by path.

    Paths are relative to the folder. Hidden files and folders are left out. A folder that is also reached by
    links is read once, under its own name if that is next to the link's; stderr reports what is left out.

    Raises:
      DataError: no such folder, a folder that cannot be read, or a folder with nothing but tables.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(
            f"config.data_dir: {folder} {problem}: name the folder of the data set, or a prepared copy"
        )
    left_out: list[tuple[str, str]] = []
    try:
        files = {
            _relative(path, folder): _stamp(path)
            for path in walk(folder, left_out)
            if is_audio(path.name) or _suffix(path.name) in also
        }
    except OSError as error:
        raise DataError(
            f"config.data_dir: cannot read {error.filename}: {error.strerror}: fix or remove it"
        ) from error
    if left_out:
        print(
            f"note: config.data_dir: {len(left_out)} links in {folder} point to folders that are read "
            f"already: {left_out[0][0]!r} is skipped, {left_out[0][1]!r} is read",
            file=sys.stderr,
        )
    if all(map(is_table, files)):
        read = [suffix for suffix in (SUFFIXES | also) - TABLE_SUFFIXES if not how_to_convert(f"a{suffix}")]
        raise DataError(
            f"config.data_dir: no sound files in {folder}: expected some of {' '.join(sorted(read))}"
        )
    return dict(sorted(files.items()))


def walk(folder: Path, left_out: list[tuple[str, str]]) -> Iterator[Path]:
    """Yield the files below a folder, in no order, except those that are hidden or in hidden folders.

    A folder that is also reached by links is walked once, under its own name if that is next to the link's.

    Args:
      folder: where to begin.
      left_out: list to which the relative paths of a skipped link and of the folder walked instead are added.

    Raises:
      OSError: a folder cannot be read.
    """
    walked: dict[tuple[int, int], str] = {}
    for parent, folders, names in os.walk(folder, onerror=_reraise, followlinks=True):
        status, here = os.stat(parent), os.path.relpath(parent, folder)
        first = walked.setdefault((status.st_dev, status.st_ino), here)
        if first != here:
            left_out.append((here, first))
            folders.clear()
            continue
        shown = sorted(name for name in folders if not name.startswith("."))
        folders[:] = sorted(shown, key=lambda name: os.path.islink(os.path.join(parent, name)))
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def soundless(root: Path, files: Iterable[str], depth: int) -> list[str]:
    """Return the folders, at most `depth` levels below the root, with none of these files in or below them.

    Links and hidden folders are passed over.
    """
    holding = {PurePosixPath(file).parts[:level] for file in files for level in range(1, depth + 1)}
    found: list[str] = []
    parents: list[tuple[str, ...]] = [()]
    for _ in range(depth):
        folders = [
            (*parent, entry.name)
            for parent in parents
            for entry in os.scandir(root.joinpath(*parent))
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        ]
        found += ["/".join(folder) for folder in folders if folder not in holding]
        parents = [folder for folder in folders if folder in holding]
    return sorted(found)


def _relative(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    if unwritable(name):
        raise DataError(f"config.data_dir: the file name {name!r} is not printable text: rename it")
    return name


def unwritable(name: str) -> bool:
    """Return whether a name has characters that a line of text cannot hold."""
    return any(unicodedata.category(character) in _UNWRITABLE for character in name)


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        if is_table(path.name) or not leads_nowhere(path):
            raise
        return _LINK_TO_NOTHING
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or device would never end
        raise DataError(f"config.data_dir: {path} is not a regular file: remove it")
    return Stamp(status.st_size, status.st_mtime_ns)


def _reraise(error: OSError) -> None:
    raise error


def is_audio(name: str) -> bool:
    """Return whether a file name has the suffix of a sound file."""
    return _suffix(name) in SUFFIXES


def is_table(name: str) -> bool:
    """Return whether a file name has the suffix of a table."""
    return _suffix(name) in TABLE_SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def composed(name: str) -> str:
    """Return a name with each accented letter as one character (NFC); macOS may write it as two (NFD)."""
    return unicodedata.normalize("NFC", name)


def fingerprint(folder: Path, files: Mapping[str, Stamp]) -> str:
    """Return the SHA-256 over names and stamps of the files, and names and content of the tables."""
    digest = hashlib.sha256()
    for name, stamp in files.items():
        content = hashlib.sha256(table_bytes(folder / name)).hexdigest() if is_table(name) else str(stamp)
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


def table_bytes(path: Path) -> bytes:
    """Return the content of a table, up to a maximum size.

    Raises:
      DataError: the table cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: check its permissions") from error
    if len(content) > _MAX_TABLE_BYTES:
        raise DataError(f"{path} is larger than {_MAX_TABLE_BYTES} bytes: is it a table of clips?")
    return content


def read_lines(path: Path) -> list[str]:
    """Return the non-blank lines of a text file, without trailing whitespace.

    Raises:
      DataError: the file is not text in UTF-8, or has no such lines.
    """
    try:
        lines = [line.rstrip() for line in table_bytes(path).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty: use the official one")
    return lines


def number(path: Path, value: str, least: float, most: float) -> float:
    """Return a number in a table.

    Raises:
      DataError: not a number, or out of range; the message names the table.
    """
    try:
        parsed = float(value)
    except ValueError:
        parsed = float("nan")
    if not least <= parsed <= most:
        raise DataError(f"{path}: {value!r} is not a number from {least:g} to {most:g}")
    return parsed


def read_table(
    path: Path, columns: Sequence[str], delimiters: str = ",", hint: str = ""
) -> list[dict[str, str]]:
    """Return the rows of a csv file with a header line.

    Args:
      path: the file.
      columns: the columns that it must have.
      delimiters: characters that may separate the values; the header shows which one does.
      hint: ends the message if a column is missing.

    Raises:
      DataError: not a UTF-8 table, a missing or repeated column, no rows, or a row of another length.
    """
    try:
        text = table_bytes(path).decode("utf-8-sig")
        delimiter = _delimiter(text, columns, delimiters)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        header = reader.fieldnames or []
        if twice := [column for column, count in Counter(header).items() if column and count > 1]:
            raise DataError(f"{path} has two columns {twice[0]!r}: remove one of them, or rename it")
        for column in columns:
            if column not in header:
                raise DataError(f"{path} has no column {column!r}: it has {', '.join(header)}{hint}")
        rows = list(reader)
        if not rows:
            raise DataError(f"{path} has no rows: list one file per line")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv table in UTF-8: {error}") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            quoted = f'; quote a value with {delimiter!r} in it, as in "one{delimiter}two"' * (None in row)
            raise DataError(f"{path}, line {number}: expected {len(header)} values as in the header{quoted}")
    return rows


def _delimiter(text: str, columns: Sequence[str], delimiters: str) -> str:
    """Return the first delimiter that finds the columns in the header, or the one that finds most columns."""
    headers = {
        delimiter: next(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter), [])
        for delimiter in delimiters
    }
    suited = (delimiter for delimiter, header in headers.items() if set(columns) <= set(header))
    return next(suited, max(headers, key=lambda delimiter: len(headers[delimiter])))


def check_classes(names: Sequence[str], where: str) -> None:
    """Check that names of classes can be stored as lines of a file, as TFDS does, and between tabs.

    Raises:
      DataError: a name cannot, or is repeated; the message begins with `where`, the source of the names.
    """
    for name in names:
        if not name or name != name.strip() or unwritable(name):
            raise DataError(
                f"{where}: {name!r} is not a valid class name: write it in one line, without control "
                "characters or surrounding spaces"
            )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: {twice[0]!r} names two classes: rename one of them")

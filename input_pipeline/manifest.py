"""Manifests of prepared splits: the clips that are in a split and those left out, one JSON object per line.

A manifest is stored next to the records of its split. It is written before their folder gets its final
name, so it exists exactly if they do. The rows of accepted clips are in the order of the records.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from input_pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One clip of a prepared split.

    Attributes:
      id: unique name of the clip in its data set.
      sha256: SHA-256 of the source file (of the samples if there is no file).
      samples: stored length, in samples at the prepared rate.
      source_rate: sample rate of the source, Hz.
      channels: number of channels of the source.
      peak: largest absolute stored value; 1.0 is full scale.
      clipped: number of samples that were out of range and had to be clipped.
      labels: names of its classes.
    """

    id: str
    sha256: str
    samples: int
    source_rate: int
    channels: int
    peak: float
    clipped: int
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Rejected:
    """A source that was left out, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The rows of one split, in the order of its records, and its rejected sources."""

    rows: tuple[Row, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def listed(self) -> int:
        """Number of sources of the split, rejected ones included."""
        return len(self.rows) + len(self.rejected)

    def write(self, path: Path) -> None:
        """Write the rows, then the rejected sources."""
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_line(row) for row in self.rows)
            file.writelines(_line(source) for source in self.rejected)


def manifest_path(folder: Path, split: str) -> Path:
    """Return the path of a split's manifest in the folder of a prepared copy."""
    return folder / f"{split}.manifest.jsonl"


def rejected_path(folder: Path, split: str) -> Path:
    """Return the path, beside a copy, of the list of a split of which too much was rejected."""
    return folder / f"{split}.rejected.jsonl"


def unlisted_path(folder: Path) -> Path:
    """Return the path, in a prepared copy, of the list of source sounds that are in none of its splits."""
    return folder / "unlisted.jsonl"


def twins_path(folder: Path) -> Path:
    """Return the path, in a prepared copy, of the list of clips that are byte for byte in two splits."""
    return folder / "twins.jsonl"


def read(path: Path) -> Manifest:
    """Read a file that `Manifest.write` wrote.

    Raises:
      ValueError: the file is cut off, or is something else.
    """
    rows: list[Row] = []
    rejected: list[Rejected] = []
    with path.open(encoding="utf-8") as file:
        try:
            for line in file:
                entry = _read_line(line)
                if isinstance(entry, Row):
                    rows.append(entry)
                else:
                    rejected.append(entry)
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"a line is not that of a manifest: {error}") from error
    return Manifest(tuple(rows), tuple(rejected))


def fingerprint(paths_and_rows: Iterable[tuple[Path, int]]) -> str:
    """Return a SHA-256 over the accepted rows of files, equal exactly if the prepared clips are the same.

    It is that of the lines that `Manifest.write` wrote. To make them again from the rows would take much
    longer for millions of clips, in each process and at each start.

    Args:
      paths_and_rows: each file and its number of accepted rows, which are its first lines.
    """
    digest = hashlib.sha256()
    for path, rows in paths_and_rows:
        with path.open(encoding="utf-8") as file:
            for line in itertools.islice(file, rows):
                digest.update(line.encode())
    return digest.hexdigest()


def joined(manifests: Iterable[Manifest]) -> Manifest:
    """Return the manifest of several splits joined in the given order."""
    parts = list(manifests)
    return Manifest(
        tuple(row for part in parts for row in part.rows),
        tuple(source for part in parts for source in part.rejected),
    )


def twins(manifests: Mapping[str, Manifest]) -> Iterator[Rejected]:
    """Yield the clips whose source bytes are those of a clip in an earlier split; the reason names it."""
    first: dict[bytes, tuple[str, str]] = {}
    for split, part in manifests.items():
        for row in part.rows:
            other, name = first.setdefault(bytes.fromhex(row.sha256), (split, row.id))
            if other != split:
                yield Rejected(row.id, f"in {split}, identical to {name!r} in {other}")


def check_shares(
    parts: Mapping[str, tuple[Sequence[Rejected], int]], listed: Mapping[str, Path], max_failed_share: float
) -> None:
    """Check that not too many files of a split were rejected.

    The limit is for mistakes that concern many files, such as another folder or an archive that is missing.
    So a single file never exceeds it unless it is 0, although it may be a large share of a small split.

    Args:
      parts: the rejected files of each split, and the number of all its files.
      listed: where the rejected files of each split are listed.
      max_failed_share: the limit, 0 to 1.

    Raises:
      DataError: more than `max_failed_share` of the files of some splits are rejected, or all of them.
    """
    tolerated = 1 if max_failed_share > 0 else 0
    failing = [
        split
        for split, (rejected, total) in parts.items()
        if len(rejected) > max(tolerated, max_failed_share * total) or len(rejected) == total
    ]
    if not failing:
        return
    (rejected, total), *others = (parts[split] for split in failing)
    counts = [f"{len(rejected)} of {total} files of split {failing[0]!r}"]
    counts += [f"{len(bad)} of {of} of {name!r}" for name, (bad, of) in zip(failing[1:], others, strict=True)]
    first = f" ({rejected[0].id}: {rejected[0].reason})" if rejected else ""
    places = [str(listed[failing[0]]), *(listed[split].name for split in failing[1:])]
    some_usable = all(len(parts[split][0]) < parts[split][1] for split in failing)
    mend = "fix or remove them" + ", or raise --config.prepare.max_failed_share" * some_usable
    raise DataError(
        f"{', '.join(counts)} are unusable{first}, more than "
        f"config.prepare.max_failed_share={max_failed_share:g}, "
        f"all listed in {' and '.join(places)}: {mend}"
    )


def _read_line(line: str) -> Row | Rejected:
    """Return what a line holds; types are checked where a wrong one would fail later, or be used unnoticed.

    Raises:
      ValueError, TypeError, KeyError, RecursionError: it holds something else.
    """
    fields: dict[str, Any] = json.loads(line)
    if "reason" in fields:
        return Rejected(**fields)
    row = Row(**fields | {"labels": tuple(fields["labels"])})
    if not all(isinstance(label, str) for label in row.labels):
        raise ValueError(f"its labels {row.labels!r} are not text")
    if not (type(row.samples) is int and row.samples > 0 and isinstance(row.id, str)):
        raise ValueError(f"it has {row.samples!r} samples and the name {row.id!r}")
    return row


def _line(row: Row | Rejected) -> str:
    return json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) + "\n"

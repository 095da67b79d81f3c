"""Packed files, which hold the sound of many clips, in any supported format."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from input_pipeline.clip import Packed
from input_pipeline.datasets import hdf5, tar

# Readers by suffix; a reader takes the path and the number of classes.
READERS: dict[str, Callable[[Path, int], Iterator[Packed]]] = {
    ".tar": lambda path, classes: tar.members(path),
    **dict.fromkeys((".h5", ".hdf", ".hdf5"), hdf5.rows),
}


@dataclass(frozen=True)
class Archives:
    """The packed files of a data set."""

    folder: Path
    files: tuple[str, ...]
    classes: int

    def __iter__(self) -> Iterator[tuple[str, Packed]]:
        """Yield every clip with its file; print to stderr how many clips of a file cannot be used.

        Raises:
          DataError: a file does not have the format that its suffix says.
        """
        for file in self.files:
            unsafe: list[Packed] = []
            for packed in READERS[Path(file).suffix.lower()](self.folder / file, self.classes):
                unsafe += [packed] * bool(packed.problem)
                yield file, packed
            if unsafe:
                print(
                    f"warning: {self.folder / file}: {len(unsafe)} clips cannot be used; the first is "
                    f"{unsafe[0].name!r}: {unsafe[0].problem}",
                    file=sys.stderr,
                )

"""The source files of a data set, and finding tables and sounds among them by their names."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from input_pipeline.clip import Clip, Excerpt, Recording
from input_pipeline.errors import DataError
from input_pipeline.source import Stamp, is_audio

# Longest path that a table may name, in parts: folders and the file itself.
_NAMED_DEPTH = 4


@dataclass(frozen=True)
class SourceFiles:
    """The files of a folder, as they were when it was scanned; none of these methods looks at the disk.

    Attributes:
      folder: where they are.
      files: stamps of the files that `source.scan` found, by path relative to the folder.
    """

    folder: Path = Path()
    files: Mapping[str, Stamp] = field(default_factory=dict)

    @functools.cached_property
    def sounds(self) -> Sequence[str]:
        """The sound files, by their paths in the folder."""
        return tuple(filter(is_audio, self.files))

    def recording(self, file: str) -> Recording:
        """Return one of the files, by its path in the folder."""
        return Recording(self.folder / file)

    def clip(
        self, name: str, labels: tuple[str, ...], file: str, part: tuple[float, float] | None = None
    ) -> Clip:
        """Return a clip that a table names; if its file is missing or ambiguous, with that problem.

        Args:
          name: id of the clip.
          labels: names of its classes.
          file: the end of its path; the suffix is ignored, since copies come in many formats.
          part: start and end of the clip in the file, seconds; None for the whole file.
        """
        found = self._by_path_end.get(_path_end(file), [])
        if not found:
            return Clip(name, labels, problem=f"no sound file {file}")
        sound = self.recording(found[0])
        if len(found) > 1:
            return Clip(name, labels, sound, f"several sound files: {found[0]}, {found[1]}")
        return Clip(name, labels, sound if part is None else Excerpt(sound, *part))

    def find(self, name: str) -> Path | None:
        """Return the path of the table with this name, at any depth in the folder, or None.

        Raises:
          DataError: there are two.
        """
        found = self._by_name.get(name, [])
        if len(found) > 1:
            raise DataError(f"config.data_dir: both {found[0]} and {found[1]} exist: remove one of them")
        return self.folder / found[0] if found else None

    def require(self, name: str) -> Path:
        """Return the path of the table with this name, at any depth in the folder.

        Raises:
          DataError: there is none, or there are two.
        """
        if (path := self.find(name)) is None:
            raise DataError(f"config.data_dir: {self.folder} lacks {name}: add the official list")
        return path

    @functools.cached_property
    def _by_path_end(self) -> Mapping[tuple[str, ...], list[str]]:
        """The sound files by every ending of their paths, without suffix."""
        ends: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for file in self.sounds:
            parts = _path_end(file)
            for depth in range(1, min(len(parts), _NAMED_DEPTH) + 1):
                ends[parts[-depth:]].append(file)
        return dict(ends)

    @functools.cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        """All files by their names without folders."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for file in self.files:
            names[PurePosixPath(file).name].append(file)
        return dict(names)


def _path_end(file: str) -> tuple[str, ...]:
    return PurePosixPath(file).with_suffix("").parts if is_audio(file) else PurePosixPath(file).parts

"""Sound in tar archives in WebDataset's layout: `key.flac` or the like, with `key.json` or `key.cls`.

The layout: github.com/webdataset/webdataset, README. Nothing is unpacked: a clip is read from its place in
the archive. Members whose names lead out of the archive's folder are not used, nor are members that declare
more bytes than a clip can have.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from input_pipeline import audio
from input_pipeline.clip import Packed, Sound
from input_pipeline.errors import DataError
from input_pipeline.source import is_audio

_MAX_BYTES = 1 << 30  # of a member; ten minutes of 32-bit stereo at 192 kHz are 0.9 GB
_MAX_LABEL_BYTES = 1 << 20
# What tarfile raises for broken headers, such as endlessly nested long names or impossible sizes.
_BROKEN = (tarfile.TarError, RecursionError, MemoryError, OverflowError, ValueError)
_LABEL_KEYS = ("labels", "label", "tag")  # keys in a json object; 'tag' is LAION's


@dataclass(frozen=True)
class Member(Sound):
    """A sound file inside an uncompressed archive, by its position there."""

    archive: Path
    offset: int
    size: int

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the decoded member."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        return audio.decode(content, max_seconds=max_seconds), hashlib.sha256(content).hexdigest()


def members(path: Path) -> Iterator[Packed]:
    """Yield the clips of an archive, each with the labels stored next to it, or None.

    Raises:
      DataError: not an uncompressed tar archive.
    """
    sounds: dict[str, Packed] = {}
    labels: dict[str, tuple[str, ...]] = {}
    broken = ""
    try:
        end = path.stat().st_size
        with tarfile.open(path, "r:") as archive:
            try:
                for info in _headers(archive):
                    info.name = info.name.replace("\\", "/")
                    folder, _, name = info.name.rpartition("/")
                    key = f"{folder}/{name.partition('.')[0]}"
                    if is_audio(info.name):
                        problem = _problem(info, end) or ("twice in the archive" if key in sounds else "")
                        sounds[key] = Packed(
                            _written(info.name), Member(path, info.offset_data, info.size), None, problem
                        )
                    elif not _problem(info, end) and info.size <= _MAX_LABEL_BYTES:
                        content = archive.extractfile(info)
                        assert content is not None  # it is a regular file
                        labels[key] = _labels(info.name, content.read())
            except _BROKEN as error:
                broken = f"the archive is cut off: {error}"
    except (*_BROKEN, OSError) as error:
        raise DataError(
            f"{path} is not an uncompressed tar archive ({error}): repack or remove it"
        ) from error
    for key, packed in sounds.items():
        yield Packed(packed.name, packed.sound, labels.get(key) or None, packed.problem)
    if broken:
        yield Packed(f"(all after {_written(next(reversed(sounds), 'nothing'))})", None, None, broken)


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in the order of the archive, each at a higher position than the one before.

    Raises:
      tarfile.HeaderError: a member is not; tarfile follows a negative size back, and would read for ever.
    """
    before = -1
    for info in archive:
        if info.size < 0 or info.offset <= before:
            raise tarfile.HeaderError(f"member {_written(info.name)} points backwards in the archive")
        before = info.offset
        yield info


def _written(name: str) -> str:
    """Return a name in printable form: bytes that are not UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def _problem(info: tarfile.TarInfo, end: int) -> str:
    """Return why a member is not used; '' if it is safe."""
    name = PurePosixPath(info.name)
    if _written(info.name) != info.name:
        return "its name is not text in UTF-8"
    if name.is_absolute() or ".." in name.parts:
        return "its name points outside the archive's folder"
    if not info.isreg() or info.issparse():
        return "a link or device, not a file"
    if info.size > _MAX_BYTES:
        return f"it declares {info.size} bytes, more than a clip can have"
    if info.offset_data + info.size > end:
        return f"it declares {info.size} bytes, but the archive has {max(0, end - info.offset_data)} for it"
    return ""


def _labels(name: str, content: bytes) -> tuple[str, ...]:
    """Return the labels in a member next to a sound: machine ids, display names or indices; () if none."""
    suffix = PurePosixPath(name).suffix
    try:
        text = content.decode()
        if suffix == ".cls":
            return tuple(text.split())
        values = json.loads(text) if suffix == ".json" else {}
    except (ValueError, RecursionError):
        return ()
    found = (
        next((values[key] for key in _LABEL_KEYS if key in values), ()) if isinstance(values, dict) else ()
    )
    return tuple(map(str, found if isinstance(found, list) else [found])) if found or found == 0 else ()

"""Sound in tar archives as WebDataset has it: `key.flac` or the like, `key.json` or `key.cls` beside it.

The layout: github.com/webdataset/webdataset, README. Nothing is unpacked: a clip is read from its place in
the archive. Members that a careless program would write elsewhere are not taken, and neither is what declares
more bytes than a clip has.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from input_pipeline import audio
from input_pipeline.datasets.clip import Packed, Sound
from input_pipeline.datasets.source import is_audio
from input_pipeline.errors import DataError

_MAX_BYTES = 1 << 30  # of a member; ten minutes of 32-bit stereo at 192 kHz are 0.9 GB
_MAX_LABEL_BYTES = 1 << 20
# What tarfile raises where headers are no whole archive's: names of names of names, sizes that nothing holds.
_BROKEN = (tarfile.TarError, RecursionError, MemoryError, OverflowError, ValueError)
_LABEL_KEYS = ("labels", "label", "tag")  # of a json object; 'tag' is LAION's


@dataclass(frozen=True)
class Member(Sound):
    """A sound file inside an uncompressed archive, at its bytes there."""

    archive: Path
    offset: int
    size: int

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """The decoded member."""
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        return audio.decode(content, max_seconds=max_seconds), hashlib.sha256(content).hexdigest()


def members(path: Path) -> Iterator[Packed]:
    """The clips of an archive, each with the labels beside it or None.

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
                        assert content is not None  # as of every regular file
                        labels[key] = _labels(info.name, content.read())
            except _BROKEN as error:
                broken = f"the archive breaks off: {error}"
    except (*_BROKEN, OSError) as error:
        raise DataError(
            f"{path} is not an uncompressed tar archive ({error}): repack or remove it"
        ) from error
    for key, packed in sounds.items():
        yield Packed(packed.name, packed.sound, labels.get(key) or None, packed.problem)
    if broken:
        yield Packed(f"(all behind {_written(next(reversed(sounds), 'nothing'))})", None, None, broken)


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members in the order of the archive, each behind the one before.

    Raises:
      tarfile.HeaderError: one is not; tarfile, which follows a negative size back, would read it for ever.
    """
    before = -1
    for info in archive:
        if info.size < 0 or info.offset <= before:
            raise tarfile.HeaderError(f"member {_written(info.name)} leads back in the archive")
        before = info.offset
        yield info


def _written(name: str) -> str:
    """A name as it can be written: bytes that are not UTF-8 stand there as escapes."""
    return name.encode(errors="backslashreplace").decode()


def _problem(info: tarfile.TarInfo, end: int) -> str:
    """Why a member is not taken; '' where it is safe."""
    name = PurePosixPath(info.name)
    if _written(info.name) != info.name:
        return "its name is not text in UTF-8"
    if name.is_absolute() or ".." in name.parts:
        return "its name leads out of the archive's folder"
    if not info.isreg() or info.issparse():
        return "a link or device, not a file"
    if info.size > _MAX_BYTES:
        return f"it declares {info.size} bytes, more than a clip has"
    if info.offset_data + info.size > end:
        return f"it declares {info.size} bytes, the archive has {max(0, end - info.offset_data)} for it"
    return ""


def _labels(name: str, content: bytes) -> tuple[str, ...]:
    """The labels in a member beside a sound: machine ids, display names or indices, as text; () is none."""
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

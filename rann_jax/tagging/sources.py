"""The arguments of `rann_jax.predict`: which ones are workdirs, and the sound files in the others."""

from collections.abc import Sequence
from pathlib import Path

from input_pipeline import audio
from input_pipeline.source import is_audio, walk
from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import is_workdir


def split_sources(first: Path, rest: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return workdirs and sources; folders with checkpoints that follow the first workdir are workdirs too.

    Raises:
      ConfigError: the first path is a file, or nothing is left to tag.
    """
    if first.is_file():
        raise ConfigError(f"{first} is a file: name the workdir first, then what to tag")
    count = next((i for i, path in enumerate(rest) if not is_workdir(path)), len(rest))
    workdirs, sources = [first, *rest[:count]], list(rest[count:])
    if not sources:
        raise ConfigError("no sound files are named, only workdirs: add files or folders to tag")
    return workdirs, sources


def find_files(sources: Sequence[Path]) -> dict[Path, Path]:
    """Return the given files, and the files in the given folders that have a known sound suffix.

    Among these are sounds that cannot be decoded here, such as .aac: they are not passed over silently. A
    folder's files are sorted, and each file is returned once. As in data preparation, hidden files and
    folders, such as .Trash or macOS's "._dog.wav", are left out, and linked folders are searched.

    Returns:
      The place of each file, which is the path of its outputs below an output folder: the name of a given
      file; the path below the given folder of a file found there, which never leads out of that folder.

    Raises:
      OSError: a folder cannot be read.
      ConfigError: a source does not exist, or is a folder without sound.
    """
    found: dict[Path, Path] = {}
    for source in sources:
        if source.is_dir():
            sounds = sorted(path for path in walk(source, []) if _is_sound(path))
            if not sounds:
                raise ConfigError(f"{source}: no sound files in this folder{_why_not_a_workdir(source)}")
            for path in sounds:
                found.setdefault(path, path.relative_to(source))
        elif source.exists():
            found.setdefault(source, Path(source.name))
        else:
            raise ConfigError(f"{source}: no such file or folder")
    return found


def _is_sound(path: Path) -> bool:
    return (is_audio(path.name) or path.suffix.lower() in audio.UNREADABLE) and path.is_file()


def _why_not_a_workdir(folder: Path) -> str:
    if is_workdir(folder):
        return "; it is a workdir: name workdirs before all files"
    return ", and no checkpoints/ as in a workdir: leave it out, or name another"

"""The outputs of `rann_jax.predict`, and checks that they can be written; formats.py writes them."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from input_pipeline import audio
from rann_jax.command_line.program import drop_stdout
from rann_jax.errors import ConfigError
from rann_jax.report.timeline_picture import TimelinePicture, picture_file
from rann_jax.saved.workdir import check_folder
from rann_jax.tagging.events import Choice
from rann_jax.tagging.formats import CsvTable, Write, label_file, output_path, shown
from rann_jax.tagging.listener import Listener

LONGEST_NAME = 255  # bytes, in Linux file systems


@dataclass(frozen=True)
class Outputs:
    """What is written about every file in addition to its tags.

    Attributes:
      choice: which classes are events.
      table: the CSV table of all files, or None.
      folders: the output folder of each wanted kind: "audacity", "raven", "picture".
      places: where the outputs for each file go below these folders, as from `sources.find_files`.
    """

    choice: Choice
    table: CsvTable | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    places: Mapping[Path, Path] = field(default_factory=dict)

    @contextmanager
    def opened(
        self, path: Path, sound: audio.Stream, listener: Listener
    ) -> Iterator[tuple[Iterable[np.ndarray], list[Write]]]:
        """Open the outputs about a file; if the block ends with an error, nothing of them is left.

        Yields:
          The blocks of the sound, which must be taken from here since a picture watches them; and a function
          for each output, to call with every part of the timeline.
        """
        blocks: Iterable[np.ndarray] = sound.blocks
        with ExitStack() as stack:
            writes = [stack.enter_context(self.table.rows_of(path))] if self.table else []
            for kind, folder in self.folders.items():
                target = folder / output_path(self.places[path], kind)
                if kind == "picture":
                    picture = TimelinePicture(listener.labels, sound.rate, listener.sample_rate / 2)
                    blocks = picture.watching(blocks)
                    writer = picture_file(target, picture, shown(path))
                else:
                    writer = label_file(target, kind, listener.labels, self.choice)
                writes.append(stack.enter_context(writer))
            yield blocks, writes


def check_outputs(places: Mapping[Path, Path], folder: Path, kind: str) -> None:
    """Raise ConfigError if an output cannot be written below a folder, or would collide with another.

    Args:
      places: as from `sources.find_files`.
      folder: the output folder.
      kind: the kind of output, which is also the name of its option.
    """
    sounds: dict[Path, Path] = {}
    for path, place in places.items():
        target = output_path(place, kind)
        other = sounds.setdefault(target, path)
        if other != path:
            raise ConfigError(f"{other} and {path} have the same file name: tag them into two folders")
        length = len(os.fsencode(target.name))
        if length > LONGEST_NAME:
            raise ConfigError(
                f"--{kind}: the name of the output for {shown(path)} would have {length} bytes, more than "
                f"{LONGEST_NAME}: give the sound a shorter name, or leave --{kind} out"
            )
    within = {parent: path for target, path in sounds.items() for parent in target.parents}
    for parent, path in sorted(within.items()):  # the output folder itself first
        if parent in sounds:
            raise ConfigError(
                f"--{kind}: the output for {shown(sounds[parent])} would have the name of the folder for "
                f"{shown(path)}: tag them into two folders"
            )
        check_folder(folder / parent, f"--{kind}")


def replaceable(path: Path, inputs: Sequence[Path]) -> Path:
    """Return the path, or the target of a link.

    Raises:
      ConfigError: it is an input, it has a sound file's suffix (as from `--csv *.wav`), or it exists and is
        not a file.
    """
    target = Path(os.path.realpath(path))
    if {path.suffix.lower(), target.suffix.lower()} & (audio.SUFFIXES | audio.UNREADABLE):
        raise ConfigError(f"--csv {path}: this is the name of a recording: name a table, such as tags.csv")
    if any(os.path.realpath(source) == str(target) for source in inputs):
        raise ConfigError(f"--csv {path}: it is one of the files to be tagged: name another")
    if target.exists() and not target.is_file():
        raise ConfigError(f"--csv {path}: it exists and is not a file: name a new file, or one to replace")
    return target


def show(line: str, *, goes_on: bool) -> None:
    """Print a line to stdout. If its reader is gone (`| head`), other outputs are still completed.

    Args:
      line: the line.
      goes_on: whether there are other outputs.

    Raises:
      BrokenPipeError: the reader is gone and there are no other outputs.
      OSError: naming stdout, which cannot be written, as when its disk is full.
    """
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        if not goes_on:
            raise
        drop_stdout()
    except OSError as error:
        drop_stdout()
        error.filename = "stdout"  # or the output file that is open meanwhile would be blamed
        raise

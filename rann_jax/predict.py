"""Tag sound files with a trained model, or with several.

Files of any format, sample rate and length are read and their outputs written block by block, so an hour of
sound takes no more memory than a minute. The network hears overlapping windows of t_c seconds; a file's tags
are the mean over its windows, as in Tagger.tag. Several workdirs form an ensemble: their probabilities are
fused window by window, and the conflict between the models is shown.

Label tracks, selection tables and pictures are named after the sounds. For sounds found in a named folder,
they are in the same sub-folders below the output folder as the sounds are below the named folder.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from input_pipeline import audio
from input_pipeline.datasets.source import is_audio, walk
from rann_jax import compilation_cache, fusion
from rann_jax.errors import ConfigError
from rann_jax.listener import Listener
from rann_jax.program import drop_stdout, guarded, unwinding_on_sigterm
from rann_jax.report.timeline_picture import TimelinePicture, picture_file
from rann_jax.tag_output import Choice, CsvTable, Tagged, csv_table, label_file, output_path, shown
from rann_jax.tagger_ensemble import DEFAULT_RULE, load
from rann_jax.timeline import RunningMean
from rann_jax.workdir import check_folder, is_workdir

TOP = 5  # tags shown per file
LONGEST_NAME = 255  # bytes, in Linux file systems

EXAMPLES = """\
examples:
  python -m rann_jax.predict runs/quickstart dog.ogg recordings/
  python -m rann_jax.predict runs/birds night.flac --hop 1 --threshold 0.5 --audacity labels/
  python -m rann_jax.predict runs/birds *.wav --json > tags.jsonl
  python -m rann_jax.predict runs/mel runs/cqt dog.ogg --rule deng --picture pictures/

The exit code is 0 if every file was tagged, 1 if some could not be (they are listed with reasons at the end
of stderr), 2 if nothing could be done.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.predict",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workdir", metavar="WORKDIR", type=Path, help="folder of a trained model; more may follow")
    add(
        "sources", metavar="FILE_OR_FOLDER", type=Path, nargs="+", help="folders are searched for sound files"
    )
    add("--rule", choices=tuple(fusion.RULES), help=f"how several models are fused (default: {DEFAULT_RULE})")
    add("--checkpoint", choices=("latest", "best"), default="latest", help="default: %(default)s")
    add("--top", type=int, metavar="K", help=f"tags shown for a file (default: {TOP})")
    add("--threshold", type=float, metavar="P", help="leave out tags and events below this probability")
    add("--hop", type=float, metavar="SECONDS", help="time between window starts (default: half a window)")
    add("--batch-size", type=int, metavar="N", help="windows computed together (default: 16; on a CPU, 4)")
    add("--json", action="store_true", help="JSON lines on stdout instead of the table")
    add(
        "--csv",
        type=Path,
        metavar="FILE",
        help="write every window's probabilities; if stopped, the rows so far are kept in FILE.partial",
    )
    add(
        "--audacity",
        type=Path,
        metavar="FOLDER",
        help="write a label track per file; needs --threshold or --top",
    )
    add("--raven", type=Path, metavar="FOLDER", help="write a Raven selection table per file; likewise")
    add("--picture", type=Path, metavar="FOLDER", help="draw each file's spectrogram and probabilities")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


@dataclass(frozen=True)
class Failure:
    """A file that could not be tagged, and why."""

    path: Path
    reason: str


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


def check_outputs(places: Mapping[Path, Path], folder: Path, kind: str) -> None:
    """Raise ConfigError if an output cannot be written below a folder, or would collide with another.

    Args:
      places: as from `find_files`.
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


@dataclass(frozen=True)
class Outputs:
    """What is written about every file in addition to its tags.

    Attributes:
      choice: which classes are events.
      table: the CSV table of all files, or None.
      folders: the output folder of each wanted kind: "audacity", "raven", "picture".
      places: where the outputs for each file go below these folders, as from `find_files`.
    """

    choice: Choice
    table: CsvTable | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    places: Mapping[Path, Path] = field(default_factory=dict)


def tag_file(
    listener: Listener, path: Path, hop_seconds: float | None, bar: tqdm, outputs: Outputs
) -> Tagged:
    """Tag one file, and advance the progress bar by the seconds heard.

    Raises:
      AudioError: the file cannot be decoded, or is empty; its outputs are removed.
    """
    mean = RunningMean()
    with ExitStack() as stack:
        sound = stack.enter_context(audio.stream(path))
        blocks, writers = sound.blocks, []
        if outputs.table:
            writers.append(outputs.table.rows_of(path))
        for kind, folder in outputs.folders.items():
            target = folder / output_path(outputs.places[path], kind)
            if kind == "picture":
                picture = TimelinePicture(listener.labels, sound.rate, listener.sample_rate / 2)
                blocks = picture.watching(blocks)
                writers.append(picture_file(target, picture, shown(path)))
            else:
                writers.append(label_file(target, kind, listener.labels, outputs.choice))
        writes = [stack.enter_context(writer) for writer in writers]
        for part in listener.stream_checked(blocks, sound.rate, hop_seconds=hop_seconds):
            move(bar, part.stops[-1] - mean.seconds)
            mean.add(part)
            for write in writes:
                write(part)
        if not mean.windows:
            raise audio.AudioError("no samples")
    return Tagged(path, mean.seconds, listener.labels, mean.probabilities, mean.conflict)


def move(bar: tqdm, seconds: float) -> None:
    """Advance the bar by seconds of sound, and show the speed relative to real time."""
    elapsed = bar.format_dict["elapsed"]
    bar.set_postfix_str(f"{(bar.n + seconds) / max(elapsed, 1e-3):.0f} x real time", refresh=False)
    bar.update(seconds)


def tag_files(
    listener: Listener,
    paths: Sequence[Path],
    outputs: Outputs,
    *,
    hop_seconds: float | None = None,
    show_progress: bool = True,
) -> Iterator[Tagged | Failure]:
    """Tag files one after the other; a file that cannot be tagged does not stop the rest."""
    form = "{desc}: {n:.0f} s of sound in {elapsed}{postfix}"
    with tqdm(bar_format=form, disable=not show_progress) as bar:
        for number, path in enumerate(paths, start=1):
            bar.set_description_str(f"{number}/{len(paths)} {shown(path.name)}")
            try:
                yield tag_file(listener, path, hop_seconds, bar, outputs)
            except audio.AudioError as error:
                yield Failure(path, str(error))


def check_hop(seconds: float | None, listener: Listener) -> None:
    """Raise ConfigError unless the hop is at least one sample and at most a window."""
    try:
        listener.hop_samples(seconds)
    except ValueError as error:
        raise ConfigError(str(error).replace("hop_seconds", "--hop")) from error


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


def choice_of(options: argparse.Namespace) -> Choice:
    """Return the choice of classes that the command line asks for.

    Raises:
      ConfigError: a number is out of range, or label files are wanted but nothing defines an event.
    """
    if (options.audacity or options.raven) and options.top is None and options.threshold is None:
        raise ConfigError(
            f"--audacity and --raven would call the {TOP} likeliest classes of every window events, however "
            "unlikely: add --threshold=P, a probability, or --top=K"
        )
    choice = Choice(TOP if options.top is None else options.top, options.threshold or 0.0)
    if choice.top < 1 or not 0 <= choice.threshold <= 1:
        raise ConfigError("--top must be at least 1 and --threshold between 0 and 1")
    return choice


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


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError: the user can fix it; the message is one line.
    """
    choice = choice_of(options)
    workdirs, sources = split_sources(options.workdir, options.sources)
    places = find_files(sources)
    paths = list(places)
    wanted = {"audacity": options.audacity, "raven": options.raven, "picture": options.picture}
    folders = {kind: folder for kind, folder in wanted.items() if folder}
    if options.csv:
        options.csv = replaceable(options.csv, paths)
    for kind, folder in folders.items():
        check_outputs(places, folder, kind)
    compilation_cache.enable()
    listener = load(workdirs, options.rule, options.checkpoint, options.batch_size)
    check_hop(options.hop, listener)
    failures = []
    with ExitStack() as stack:
        table = None
        if options.csv:
            with_conflict = len(workdirs) > 1
            table = stack.enter_context(csv_table(options.csv, listener.labels, with_conflict=with_conflict))
        outputs = Outputs(choice, table, folders, places)
        progress = not options.quiet
        for result in tag_files(listener, paths, outputs, hop_seconds=options.hop, show_progress=progress):
            if isinstance(result, Failure):
                failures.append(result)
                continue
            line = json.dumps(result.as_json(choice)) if options.json else result.as_table(choice)
            show(line, goes_on=bool(options.csv or folders))
    for failure in failures:
        print(f"not tagged: {shown(failure.path)}: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = _parser().parse_args(arguments)
    with unwinding_on_sigterm():
        return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

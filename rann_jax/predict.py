"""Tag sound files with a trained model.

Files of any format, rate and length are read block by block: an hour takes no more memory than a
minute. The network hears overlapping windows of t_c seconds; a file's tags are the mean over them.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from input_pipeline import audio
from rann_jax import tag_output
from rann_jax.errors import ConfigError
from rann_jax.tag_output import Tagged
from rann_jax.tagger import Tagger, Timeline
from rann_jax.workdir import replace_atomically

EXAMPLES = """\
examples:
  python -m rann_jax.predict runs/quickstart dog.ogg recordings/
  python -m rann_jax.predict runs/birds night.flac --hop 1 --threshold 0.5 --audacity labels/
  python -m rann_jax.predict runs/birds *.wav --json > tags.jsonl

The exit code is 0 where every file was tagged, 1 where some could not be (they are listed at the end of
stderr, with reasons), 2 where nothing could be done.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.predict",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("workdir", metavar="WORKDIR", type=Path, help="folder of a trained model")
    add(
        "sources", metavar="FILE_OR_FOLDER", type=Path, nargs="+", help="folders are searched for sound files"
    )
    add("--checkpoint", choices=("latest", "best"), default="latest", help="default: %(default)s")
    add("--top", type=int, default=5, metavar="K", help="tags shown for a file (default: %(default)s)")
    add("--threshold", type=float, default=0.0, metavar="P", help="leave out tags under this probability")
    add("--hop", type=float, metavar="SECONDS", help="between windows (default: half a window)")
    add("--batch-size", type=int, default=16, metavar="N", help="windows at a time (default: %(default)s)")
    add("--json", action="store_true", help="JSON lines on stdout instead of the table")
    add("--csv", type=Path, metavar="FILE", help="write every window's probabilities")
    add("--audacity", type=Path, metavar="FOLDER", help="write a label track for each file")
    add("--raven", type=Path, metavar="FOLDER", help="write a Raven selection table for each file")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


@dataclass(frozen=True)
class Failure:
    """A file that could not be tagged, and why."""

    path: Path
    reason: str


def find_files(sources: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named whose suffix libsndfile knows; sorted, each once.

    Raises:
      ConfigError: a source does not exist, or there is no sound at all.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            inside = (path for path in sorted(source.rglob("*")) if path.is_file())
            found |= dict.fromkeys(path for path in inside if path.suffix.lower() in audio.SUFFIXES)
        elif source.exists():
            found[source] = None
        else:
            raise ConfigError(f"{source}: no such file or folder")
    if not found:
        raise ConfigError(f"{', '.join(map(str, sources))}: no sound files in there")
    return list(found)


def check_names(paths: Sequence[Path]) -> None:
    """Raise ConfigError where the labels of two files would take one name."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.name, path)
        if other != path:
            raise ConfigError(f"{other} and {path} have one name: write their labels in two runs")


def tag_file(tagger: Tagger, path: Path, hop_seconds: float | None, bar: tqdm) -> Tagged:
    """Tag one file, moving the bar on by the seconds heard.

    Raises:
      AudioError: the file cannot be decoded, or is empty.
    """
    parts = []
    with audio.stream(path) as sound:
        heard = 0.0
        for part in tagger.stream(sound.blocks, sound.rate, hop_seconds=hop_seconds):
            parts.append(part)
            bar.update(part[1][-1] - heard)
            heard = part[1][-1]
    if not parts:
        raise audio.AudioError("no samples")
    starts, stops, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Tagged(path, Timeline(starts, stops, probabilities, tagger.labels))


def tag_files(
    tagger: Tagger, paths: Sequence[Path], *, hop_seconds: float | None = None, show_progress: bool = True
) -> Iterator[Tagged | Failure]:
    """Tag files one after the other; a file that cannot be tagged does not stop the rest."""
    form = "{desc}: {n:.0f} s of sound in {elapsed}, {rate_fmt}"
    # A rate of seconds heard per second is how many times faster than real time.
    with tqdm(bar_format=form, unit=" x real time", unit_scale=True, disable=not show_progress) as bar:
        for number, path in enumerate(paths, start=1):
            bar.set_description_str(f"{number}/{len(paths)} {path.name}")
            try:
                yield tag_file(tagger, path, hop_seconds, bar)
            except audio.AudioError as error:
                yield Failure(path, str(error))


def run(options: argparse.Namespace) -> int:
    """What the command line does; returns the exit code.

    Raises:
      ConfigError: what the user can mend, in one line.
    """
    if options.top < 1 or not 0 <= options.threshold <= 1:
        raise ConfigError("--top must be at least 1 and --threshold in 0..1")
    paths = find_files(options.sources)
    if options.audacity or options.raven:
        check_names(paths)
    tagger = Tagger.load(options.workdir, checkpoint=options.checkpoint, batch_size=options.batch_size)
    if options.hop is not None and not 0 < options.hop <= tagger.window_seconds:
        raise ConfigError(
            f"--hop={options.hop:g}: it must be positive and at most {tagger.window_seconds:g} s"
        )
    chosen = {"top": options.top, "threshold": options.threshold}
    failures, rows = [], []
    for result in tag_files(tagger, paths, hop_seconds=options.hop, show_progress=not options.quiet):
        if isinstance(result, Failure):
            failures.append(result)
            continue
        line = json.dumps(result.as_json(**chosen)) if options.json else result.as_table(**chosen)
        tqdm.write(line, file=sys.stdout)
        if options.csv:
            rows += tag_output.csv_rows(result)
        for folder, kind in ((options.audacity, "audacity"), (options.raven, "raven")):
            if folder:
                _write(folder / tag_output.file_name(result.path, kind), result.as_labels(kind, **chosen))
    if options.csv:
        _write(options.csv, tag_output.csv_text(tagger.labels, rows))
    for failure in failures:
        print(f"not tagged: {failure.path}: {failure.reason}", file=sys.stderr)
    return 1 if failures else 0


def _write(path: Path, text: str) -> None:
    with replace_atomically(path) as file:
        file.write(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    try:
        return run(_parser().parse_args(arguments))
    except ConfigError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

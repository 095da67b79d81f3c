"""Tag sound files with a trained model, or with several.

Files of any format, sample rate and length are read and their outputs written block by block, so an hour of
sound takes no more memory than a minute. The network hears overlapping windows of t_c seconds; a file's tags
are the mean over its windows, as in Tagger.tag. Several workdirs form an ensemble: their probabilities are
fused window by window, and the conflict between the models is shown.

Label tracks, selection tables and pictures are named after the sounds. Sub-folders are kept: with --audacity
labels, the label track of recordings/night/owl.wav, found in recordings, is labels/night/owl.wav.txt.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from input_pipeline import audio
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.command_line.signals import unwinding_on_sigterm
from rann_jax.devices import compilation_cache
from rann_jax.errors import ConfigError
from rann_jax.tagging.events import Choice
from rann_jax.tagging.formats import Tagged, csv_table, shown
from rann_jax.tagging.listener import Listener
from rann_jax.tagging.outputs import Outputs, check_outputs, replaceable, show
from rann_jax.tagging.sources import find_files, split_sources
from rann_jax.tagging.tagger_ensemble import add_model_options, load
from rann_jax.tagging.timeline import RunningMean

TOP = 5  # tags shown per file

EXAMPLES = """\
examples:
  python -m rann_jax.predict runs/quickstart dog.ogg recordings/
  python -m rann_jax.predict runs/birds night.flac --hop 1 --threshold 0.5 --audacity labels/
  python -m rann_jax.predict runs/birds *.wav --json > tags.jsonl
  python -m rann_jax.predict runs/mel runs/cqt dog.ogg --rule deng --picture pictures/
  python -m rann_jax.predict runs/mel runs/cqt dog.ogg --weights 0.6,0.4

The exit code is 0 if every file was tagged, 1 if some could not be (they are listed with reasons at the end
of stderr), 2 if nothing could be done.
"""


def _parser() -> Parser:
    parser = Parser("rann_jax.predict", __doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("workdir", metavar="WORKDIR", type=Path, help="workdir of a trained model; more may follow")
    add(
        "sources", metavar="FILE_OR_FOLDER", type=Path, nargs="+", help="folders are searched for sound files"
    )
    add_model_options(parser)
    add(
        "--top",
        type=int,
        metavar="K",
        help=f"tags shown for a file (default: {TOP}), classes in events at a time (default: all)",
    )
    add("--threshold", type=float, metavar="P", help="leave out tags and events below this probability")
    add("--hop", type=float, metavar="SECONDS", help="time between window starts (default: half a window)")
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
    add("--raven", type=Path, metavar="FOLDER", help="as --audacity, but Raven selection tables")
    add("--picture", type=Path, metavar="FOLDER", help="draw each file's spectrogram and probabilities")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


@dataclass(frozen=True)
class Failure:
    """A file that could not be tagged, and why."""

    path: Path
    reason: str


def tag_file(
    listener: Listener, path: Path, hop_seconds: float | None, bar: tqdm, outputs: Outputs
) -> Tagged:
    """Tag one file, and advance the progress bar by the seconds heard.

    Raises:
      AudioError: the file cannot be decoded, or is empty; its outputs are removed.
    """
    mean = RunningMean()
    with audio.stream(path) as sound, outputs.opened(path, sound, listener) as (blocks, writes):
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


def choice_of(options: argparse.Namespace) -> Choice:
    """Return the choice of the classes that are in events, as the command line asks for.

    Raises:
      ConfigError: a number is out of range, or label files are wanted but nothing defines an event.
    """
    if (options.audacity or options.raven) and options.top is None and options.threshold is None:
        raise ConfigError(
            "--audacity and --raven would call every class of every window an event, however unlikely: add "
            "--threshold=P, a probability, or --top=K"
        )
    try:
        return Choice(options.top, options.threshold or 0.0)
    except ValueError as error:
        raise ConfigError("--top must be at least 1 and --threshold between 0 and 1") from error


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError: the user can fix it; the message is one line.
    """
    events = choice_of(options)
    tags = replace(events, top=events.top or TOP)
    workdirs, sources = split_sources(options.workdir, options.sources)
    places = find_files(sources)
    paths = list(places)
    wanted = {"audacity": options.audacity, "raven": options.raven, "picture": options.picture}
    folders = {kind: folder for kind, folder in wanted.items() if folder}
    csv = replaceable(options.csv, paths) if options.csv else None
    for kind, folder in folders.items():
        check_outputs(places, folder, kind)
    compilation_cache.enable()
    listener = load(workdirs, options.rule, options.weights, options.checkpoint, options.batch_size)
    check_hop(options.hop, listener)
    failures = []
    with ExitStack() as stack:
        table = None
        if csv:
            with_conflict = len(workdirs) > 1
            table = stack.enter_context(csv_table(csv, listener.labels, with_conflict=with_conflict))
        outputs = Outputs(events, table, folders, places)
        progress = not options.quiet
        for result in tag_files(listener, paths, outputs, hop_seconds=options.hop, show_progress=progress):
            if isinstance(result, Failure):
                failures.append(result)
                continue
            line = json.dumps(result.as_json(tags)) if options.json else result.as_table(tags)
            show(line, goes_on=bool(csv or folders))
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

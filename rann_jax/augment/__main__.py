"""Hear and see what the augmentations do: `python -m rann_jax.augment FILE --out DIR`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from scipy.io import wavfile

from input_pipeline.audio import pad_or_crop
from rann_jax.augment.demonstration import NAMES, Example, demonstrate, draw
from rann_jax.command_line.excerpt import read
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.saved.workdir import replace_atomically
from rann_jax.tagging.formats import shown

PICTURE = "augmentations.png"
SEEDS = 2**32  # distinct seeds of jax.random.key, which wraps others around to these

DESCRIPTION = """\
Apply every training augmentation, each with its default range, to a recording, and write the results:

  DIR/original.wav, DIR/partner.wav   the recording, and the one that mixtures add
  DIR/NAME.wav                        the recording with the augmentation NAME
  DIR/augmentations.png               spectrograms of all, on the same axes, with the values drawn

NAME is the name in config.augment. Sounds are mono, at the recording's own rate, in 32-bit float so that none
is clipped. Augmentations of the feature image alone (spec_augment, feature_mixup) are made audible: the
spectrum gets the same gain as the image. The same --seed gives the same files.
"""
EXAMPLES = """\
examples:
  python -m rann_jax.augment dog.ogg --out augmented
  python -m rann_jax.augment dog.ogg --with siren.wav --seed 3 --out augmented
  python -m rann_jax.augment song.wav --start 60 --seconds 4 --out augmented

Any sound file that libsndfile can read works (wav, flac, ogg, mp3, aiff...); channels are averaged.
"""


def _parser() -> Parser:
    parser = Parser("rann_jax.augment", DESCRIPTION, epilog=EXAMPLES)
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the recording")
    add(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for sounds and picture, created if necessary",
    )
    add("--with", dest="partner", metavar="FILE2", type=Path, help="sound to mix in (default: FILE reversed)")
    add("--start", type=float, default=0.0, help="start in both files, in seconds (default: %(default)g)")
    add("--seconds", type=float, default=5.0, help="how many seconds to use at most (default: %(default)g)")
    add("--seed", type=int, default=0, help="random seed (default: %(default)d)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 after an error that the user can fix."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options), also=(ValueError,))


def run(options: argparse.Namespace) -> int:
    """Carry out the command line; return the exit code.

    Raises:
      ValueError: an error that the user can fix.
    """
    if not 0 <= options.seed < SEEDS:
        raise ValueError(f"--seed={options.seed}: it must be between 0 and {SEEDS - 1}")
    sound, rate = read(options.file, options.start, options.seconds)
    partner = sound[::-1]
    if options.partner is not None:
        other, other_rate = read(options.partner, options.start, options.seconds)
        partner = pad_or_crop(soxr.resample(other, other_rate, rate), len(sound))
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out}: this is a file; name a folder")
    _check_apart(options.out, options.file, options.partner)
    examples = demonstrate(sound, np.ascontiguousarray(partner), rate, options.seed)
    name = shown(options.file.name)
    title = f"{name}   {len(sound) / rate:.2f} s at {rate / 1000:g} kHz   seed {options.seed}"
    _write(options.out, examples, rate, title)
    return 0


def _check_apart(folder: Path, *inputs: Path | None) -> None:
    """Raise ValueError if an output file would replace an input file."""
    written = [folder / PICTURE, *(folder / f"{name}.wav" for name in NAMES)]
    for target in filter(Path.exists, written):
        if any(target.samefile(file) for file in inputs if file is not None):
            raise ValueError(
                f"--out {folder}: {target} is an input and would be overwritten: name another folder"
            )


def _write(folder: Path, examples: list[Example], rate: int, title: str) -> None:
    for example in examples:
        with replace_atomically(folder / f"{example.name}.wav", "wb") as file:
            wavfile.write(file, rate, example.sound.astype(np.float32))
        print(shown(folder / f"{example.name}.wav"))
    picture = folder / PICTURE
    with replace_atomically(picture, "wb") as file:
        draw(examples, rate, title).savefig(file, format="png")
    print(shown(picture))


if __name__ == "__main__":
    sys.exit(main())

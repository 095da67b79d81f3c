"""Draw every feature of a recording: `python -m rann_jax.features FILE --out features.png`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from rann_jax.command_line.excerpt import read
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.features.plot import draw
from rann_jax.saved.workdir import replace_atomically
from rann_jax.tagging.formats import shown

DESCRIPTION = """\
Draw, on one page, the waveform of a recording and the seven features that a network can take as input,
computed at the recording's own sample rate:

  log-mel spectrogram   energy in 128 mel bands; what the main network sees
  wavelet scalogram     energy at 128 wavelet scales; sharp in time where frequencies are high
  constant-Q transform  energy at musical notes, two bins a semitone
  MFCC, GFCC            shape of the mel or gammatone spectrum, as cepstral coefficients
  chromagram            the twelve pitch classes, octaves folded
  tempogram             the tempo at which onsets repeat
"""
EXAMPLES = """\
examples:
  python -m rann_jax.features dog.ogg                            writes features.png
  python -m rann_jax.features song.wav --start 60 --seconds 8 --out chorus.pdf

Any sound file that libsndfile can read works (wav, flac, ogg, mp3, aiff...); channels are averaged.
"""


def _parser() -> Parser:
    parser = Parser("rann_jax.features", DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("file", metavar="FILE", type=Path, help="the recording")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("features.png"),
        help="picture to write; its suffix sets the format: png, pdf, svg (default: %(default)s)",
    )
    parser.add_argument(
        "--start", type=float, default=0.0, help="where to start, in seconds (default: %(default)g)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how many seconds to draw at most (default: %(default)g)"
    )
    return parser


def check_out(out: Path) -> None:
    """Raise ValueError, before any work is done, if the picture cannot be written."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if out.suffix.lstrip(".").lower() not in known:
        raise ValueError(f"--out {out}: its suffix must be a picture format, such as .png or .pdf")
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 after an error that the user can fix."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options), also=(ValueError,))


def run(options: argparse.Namespace) -> int:
    """Carry out the command line; return the exit code.

    Raises:
      ValueError: an error that the user can fix.
    """
    check_out(options.out)
    y, rate = read(options.file, options.start, options.seconds)
    title = f"{shown(options.file.name)}   {len(y) / rate:.2f} s at {rate / 1000:g} kHz"
    with replace_atomically(options.out, "wb") as file:
        draw(y, rate, title).savefig(file, format=options.out.suffix.lstrip(".").lower())
    print(shown(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make one self-contained html page about a run or a cross-validation, and one png of its pictures.

  python -m rann_jax.report runs/quickstart

writes WORKDIR/report/index.html and index.png. They show scores, curves, confusion matrix, average precision
and F1 of each class, the worst mistakes with their spectrograms, commands, versions and devices, and the
fingerprint of the data; for a workdir of rann_jax.crossval also the feature table and the fusion table.

The page loads nothing and runs no script. Spectrograms are drawn from the prepared copy of the data, which is
looked up as the run's config says; without it the mistakes are only listed. A run may be unfinished.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rann_jax import significance
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.report import collect, page
from rann_jax.saved.environment import command_text
from rann_jax.saved.workdir import check_folder, replace_atomically


def write(workdir: Path, out: Path, *, command: str, draws: int) -> list[Path]:
    """Write the page and, if it has pictures, the png; return the files written.

    Raises:
      ConfigError: the workdir holds nothing to report on, or a file of it is broken; or `out` cannot be
        written to.
    """
    found = collect.read(workdir)
    check_folder(out, "--out")
    if isinstance(found, collect.Run):
        made = page.of_run(found, command, draws)
    else:
        made = page.of_cross_validation(found, command)
    contents = {
        "index.html": made.html(f"{workdir.absolute().name}: rann-jax report"),
        "index.png": made.png(),
    }
    written = [out / name for name, content in contents.items() if content is not None]
    for path in written:
        with replace_atomically(path, "wb") as file:
            file.write(contents[path.name])
    return written


def _parser() -> Parser:
    parser = Parser("rann_jax.report", __doc__)
    parser.add_argument(
        "workdir", metavar="WORKDIR", type=Path, help="workdir of a run or of rann_jax.crossval"
    )
    parser.add_argument("--out", type=Path, help="folder to write to (default: WORKDIR/report)")
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        help="bootstrap draws for intervals of a run's scores; 0 for none (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 after an error that the user can fix."""
    options = _parser().parse_args(arguments)
    command = command_text("rann_jax.report", sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: run(options, command))


def run(options: argparse.Namespace, command: str) -> int:
    """Carry out the command line, `command`; return the exit code.

    Raises:
      ConfigError: an error that the user can fix.
    """
    significance.check_draws(options.bootstrap)
    out = options.out or options.workdir / "report"
    for path in write(options.workdir, out, command=command, draws=options.bootstrap):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

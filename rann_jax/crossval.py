"""Cross-validate several features, then fuse them: the deck's two result tables with one command.

  python -m rann_jax.crossval --config configs/esc50.py:subset=esc10,size=small \\
      --features log_mel,mfcc,cqt,gfcc,wavegram --folds 1-5 --workdir W --config.data_dir=ESC10

trains each feature on each fold in W/FEATURE/foldN, using the config's presets `feature` and `fold`. The same
command again skips finished runs and resumes the others. On SIGTERM or Ctrl-C the current run saves, and both
programs exit with code 75; a second Ctrl-C ends the run at once.

When all runs are finished, each feature's predictions on the held-out folds are pooled into
W/FEATURE/predictions/pooled.npz. W/report gets cells.md, features.md and, for two or more features, fusion.md
(each also as .csv), fusion_accuracy.md (in tagging fusion_mAP.md) and fusion.png. `python -m rann_jax.report
W` makes a web page of it.

With --finished nothing is trained. cells.md says which cells (one feature on one fold) are finished and which
are not; the other tables cover the folds that every feature with a finished cell has. A cell counts as
finished if its config and predictions are there, so results can be kept without the weights. A cell is
refused if --mode=eval has since replaced its predictions by those of other data or other settings.

If several clips are of one speaker or recording, say so with --groups, such as '-([0-9]+)$' for the actors of
RAVDESS. Intervals then draw whole groups, p in fusion.md is of a test that flips the signs of whole groups,
not McNemar's, and p_corrected allows for the choice among all rows.

Any --config.key=value is passed on to every run.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from rann_jax import significance
from rann_jax.command_line import child
from rann_jax.command_line.config_file import collecting_notes, load_config_file
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.errors import ConfigError
from rann_jax.evaluate import check_best_metric, check_splits
from rann_jax.exit_codes import INTERRUPTED, RESUMABLE
from rann_jax.experiment import build
from rann_jax.report import crossval_tables
from rann_jax.saved import environment, predictions
from rann_jax.saved.cells import SPLIT, Cell, finished, grid, parse_folds
from rann_jax.saved.predictions import Predictions
from rann_jax.saved.workdir import check_folder, check_trainable


def run(options: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    """Do what the command line, `command`, asks and return the exit code.

    Raises:
      ConfigError: the user can fix it; it is raised before anything is trained if it can be known by then.
    """
    work = _cells(options)
    configs = _configs(work, overrides)
    done = {cell: part for cell in work if (part := finished(cell, configs[cell]))}
    if options.finished and not done:
        raise ConfigError(f"--finished: {options.workdir} holds no finished cell of these features and folds")
    waiting = [] if options.finished else [cell for cell in work if cell not in done]
    _check_configs(configs, waiting)
    code = _train_all(work, waiting, done, overrides, options.quiet)
    if code:
        return code
    shown = crossval_tables.write(options.workdir, work, done, options.bootstrap, options.groups)
    environment.save(options.workdir, command)
    print(shown)
    return 0


def _cells(options: argparse.Namespace) -> list[Cell]:
    """Return the cells that the command line names, and check the rest of it."""
    features = [name for name in options.features.split(",") if name]
    if not features or len(set(features)) < len(features):
        raise ConfigError(f"--features {options.features}: name at least one feature, and each once")
    significance.check_draws(options.bootstrap)
    check = check_folder if options.finished else check_trainable
    check(options.workdir)
    return grid(options.config, features, parse_folds(options.folds), options.workdir)


def _configs(work: Sequence[Cell], overrides: Sequence[str]) -> dict[Cell, ConfigDict]:
    """Return the config of each cell. What the config file says of the data is shown once, not per cell."""
    configs = {}
    shown = set()
    for cell in work:
        with collecting_notes() as notes:
            configs[cell] = load_config_file(cell.config_arg, overrides)
        for line in notes:
            if line not in shown:
                print(line, file=sys.stderr)
        shown.update(notes)
    return configs


def _check_configs(configs: Mapping[Cell, ConfigDict], waiting: Sequence[Cell]) -> None:
    """Raise ConfigError if a config cannot be run, or one that waits would not be scored as it must.

    These errors show now, not when a cell's turn comes.
    """
    for cell in {cell.feature: cell for cell in configs}.values():  # one of each: building takes long
        build(configs[cell])
    for cell in waiting:
        _check_scores(configs[cell])


def _check_scores(config: ConfigDict) -> None:
    """Raise ConfigError unless training yields the predictions that are pooled, and its best_metric."""
    check_splits(config)
    if SPLIT not in config.eval.splits:
        raise ConfigError(
            f"config.eval.splits={tuple(config.eval.splits)} lacks {SPLIT}, whose predictions are "
            "pooled: add it"
        )
    check_best_metric(config)


def train_cell(cell: Cell, overrides: Sequence[str], quiet: bool) -> int:
    """Train a cell, or resume its training, and return the exit code.

    Each cell runs in its own process. This frees host and device memory between networks, a run that is
    killed for lack of memory does not affect others, and the command can be repeated by hand. SIGTERM or
    SIGINT to this process stops the cell's process too; see `child.run`.
    """
    command = [sys.executable, "-m", "rann_jax.main", "--config", cell.config_arg]
    command += ["--workdir", str(cell.workdir), *overrides, "--nonotes", *["--quiet"] * quiet]
    return child.run(command)


def _train_all(
    work: Sequence[Cell],
    waiting: Sequence[Cell],
    done: dict[Cell, Predictions],
    overrides: Sequence[str],
    quiet: bool,
) -> int:
    """Train the waiting cells and add their predictions to `done`; return the exit code of the first failure.

    Each cell is announced, also those that do not wait.
    """
    for number, cell in enumerate(work, start=1):
        label = f"{number}/{len(work)} {cell.name}"
        if cell not in waiting:
            print(f"{label}: {'already finished' if cell in done else 'not finished'}", flush=True)
            continue
        print(f"{label}: {cell.workdir}", flush=True)
        begin = time.monotonic()
        code = train_cell(cell, overrides, quiet)
        if code:
            # After any other exit code it would fail again.
            stopped = code < 0 or code in (RESUMABLE, INTERRUPTED)
            goes_on = "; run the same command again to resume" * stopped
            print(f"{label}: stopped with exit code {code}{goes_on}", flush=True)
            return code if code > 0 else 1
        print(f"{label}: finished after {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
        done[cell] = predictions.load(cell.workdir, SPLIT)
    return 0


def _resumable(options: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    try:
        return run(options, overrides, command)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return INTERRUPTED


def _parser() -> Parser:
    parser = Parser("rann_jax.crossval", __doc__)
    parser.add_argument(
        "--config", required=True, help="configs/NAME.py[:presets]; it must have the presets feature and fold"
    )
    parser.add_argument("--features", required=True, help="such as log_mel,mfcc,cqt")
    parser.add_argument("--folds", default="1-5", help="such as 1-5 or 1,3 (default: %(default)s)")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of all runs and tables")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap draws; 0 for none (default: %(default)s)"
    )
    parser.add_argument("--groups", default="", metavar="REGEX", help=significance.GROUPS_HELP)
    parser.add_argument(
        "--finished", action="store_true", help="train nothing; write the tables of what is finished"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, 2 for what the user can fix, 75 or 130 if stopped, or a run's exit code."""
    options, overrides = _parser().parse_known_args(arguments)
    command = environment.command_text("rann_jax.crossval", sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _resumable(options, overrides, command))


if __name__ == "__main__":
    sys.exit(main())

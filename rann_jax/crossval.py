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
finished with its config and predictions alone, so results can be kept without the weights. A cell whose
predictions were since made from other data or with other settings, by --mode=eval, is refused.

Any --config.key=value is passed on to every run.
"""

import argparse
import dataclasses
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rann_jax import child, ensemble, environment, predictions, significance
from rann_jax.config_file import load_config_file
from rann_jax.errors import ConfigError
from rann_jax.evaluate import check_best_metric, check_splits
from rann_jax.experiment import build
from rann_jax.predictions import Predictions
from rann_jax.preemption import EXIT_CODE, INTERRUPTED
from rann_jax.program import guarded
from rann_jax.record import data_fingerprints
from rann_jax.report import tables
from rann_jax.tasks import HEADLINE
from rann_jax.workdir import CONFIG_FILE, check_folder, check_same_config, check_trainable
from rann_jax.writers import METRICS, read_metrics

SPLIT, POOLED = "test", "pooled"
MAX_FOLDS = 1000  # (ours) more must be a typing error


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of the cross-validation: a feature, tested on a fold."""

    feature: str
    fold: int
    config_arg: str
    workdir: Path

    @property
    def name(self) -> str:
        """The name of the cell, such as 'mfcc/fold2'."""
        return f"{self.feature}/fold{self.fold}"


def cells(config: str, features: Sequence[str], folds: Sequence[int], workdir: Path) -> list[Cell]:
    """Return every feature on every fold, in the order in which they run."""
    file, _, presets = config.partition(":")
    prefix = f"{file}:{presets}," if presets else f"{file}:"
    return [
        Cell(f, k, f"{prefix}feature={f},fold={k}", workdir / f / f"fold{k}") for f in features for k in folds
    ]


def parse_folds(text: str) -> list[int]:
    """Return the folds that `text` lists, as in '1-5' or '1,3,4'.

    Raises:
      ConfigError: the text is malformed, a fold is named twice, or there are too many.
    """
    folds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            begin, end = int(first), int(last or first) + 1
            if len(folds) + end - begin > MAX_FOLDS:  # before building a list of them
                raise ConfigError(f"--folds {text}: name at most {MAX_FOLDS} folds")
            folds += range(begin, end)
    except ValueError as error:
        raise ConfigError(f"--folds {text}: write the folds as in 1-5 or 1,3") from error
    if not folds or len(set(folds)) < len(folds):
        raise ConfigError(f"--folds {text}: name at least one fold, and each once")
    return folds


def finished(cell: Cell, overrides: Sequence[str]) -> Predictions | None:
    """Return the predictions of a cell, or None unless they are those of the fully trained weights.

    Raises:
      ConfigError: the config cannot be loaded, the cell was run with another one, or its predictions are not
        of the run's data or not scored as its config says.
    """
    config = load_config_file(cell.config_arg, overrides)
    check_same_config(cell.workdir, config)
    if not _begun(cell) or not predictions.path_of(cell.workdir, SPLIT).exists():
        return None
    part = predictions.load(cell.workdir, SPLIT)
    if part.step != config.total_steps:
        return None
    _check_scored(cell, config, part)
    return part


def _check_scored(cell: Cell, config: ConfigDict, part: Predictions) -> None:
    """Raise ConfigError if a cell was scored again on other data or with other settings.

    What is not known passes: the data of a run that was kept without its checkpoints, and the settings of
    predictions of earlier versions.
    """
    crops = config.eval.max_crops
    if part.fingerprint != data_fingerprints(cell.workdir).get(SPLIT, part.fingerprint):
        wrong = "is of other data than the run (its fingerprint differs)"
    elif part.max_crops not in (None, crops):
        wrong = f"was scored with eval.max_crops={part.max_crops}, not {crops}"
    else:
        return
    raise ConfigError(
        f"{predictions.path_of(cell.workdir, SPLIT)} {wrong}: score the cell again: "
        f"python -m rann_jax.main --mode=eval --workdir {cell.workdir}"
    )


def _begun(cell: Cell) -> bool:
    return (cell.workdir / CONFIG_FILE).exists()


def _check_scores(config: ConfigDict) -> None:
    """Raise ConfigError unless training yields the predictions that are pooled, and its best_metric."""
    check_splits(config)
    if SPLIT not in config.eval.splits:
        raise ConfigError(
            f"config.eval.splits={tuple(config.eval.splits)} lacks {SPLIT}, whose predictions are "
            "pooled: add it"
        )
    check_best_metric(config)


def train(cell: Cell, overrides: Sequence[str], quiet: bool) -> int:
    """Train a cell, or resume its training, and return the exit code.

    Each cell runs in its own process. This frees host and device memory between networks, a run that is
    killed for lack of memory does not affect others, and the command can be repeated by hand. SIGTERM or
    SIGINT to this process stops the cell's process too; see `child.run`.
    """
    command = [sys.executable, "-m", "rann_jax.main", "--config", cell.config_arg]
    command += ["--workdir", str(cell.workdir), *overrides, *["--quiet"] * quiet]
    return child.run(command)


def pool(runs: Mapping[int, Predictions]) -> Predictions:
    """Join the held-out predictions of several folds into one split.

    Raises:
      ConfigError: the folds share clips or differ in labels.
    """
    parts = [runs[fold] for fold in sorted(runs)]
    if any(not np.array_equal(part.labels, parts[0].labels) for part in parts):
        raise ConfigError("the folds differ in their labels: they are not of one data set")
    ids = np.concatenate([part.ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        raise ConfigError("a clip is in two folds: the preset `fold` must change config.splits.test")
    return Predictions(
        ids=ids,
        targets=np.concatenate([part.targets for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        labels=parts[0].labels,
        fingerprint=hashlib.sha256("".join(part.fingerprint for part in parts).encode()).hexdigest(),
        task=parts[0].task,
        step=min(part.step for part in parts),
    )


def cell_rows(work: Sequence[Cell], done: Mapping[Cell, Predictions]) -> list[dict[str, Any]]:
    """Return one row per cell, run or not: its headline, clips, minutes, and devices of its last launch.

    Minutes run from the first step to the last score. They exclude startup, and work that a killed run did
    after its last checkpoint.

    Raises:
      ConfigError: a file of a run cannot be read.
    """
    rows = []
    measure = HEADLINE[next(iter(done.values())).task] if done else "accuracy"
    for cell in work:
        row: dict[str, Any] = {"feature": cell.feature, "fold": str(cell.fold)}
        row[measure] = "not finished" if _begun(cell) else "not run"
        row |= dict.fromkeys(("clips", "minutes", "devices"), "")
        if (part := done.get(cell)) is not None:
            row[measure] = ensemble.headline(part)
            row["clips"] = str(len(part.ids))
            row["minutes"] = _minutes(cell.workdir / METRICS)
            row["devices"] = environment.load(cell.workdir).get("devices", "")
        rows.append(row)
    return rows


def _minutes(metrics: Path) -> str:
    """Return the minutes of a whole run; empty if it did not record them, as in earlier versions."""
    seconds = [row["time/seconds"] for row in read_metrics(metrics) if row.get("time/seconds") is not None]
    return f"{seconds[-1] / 60:.1f}" if seconds else ""


def feature_rows(
    runs: Mapping[str, Mapping[int, Predictions]], pooled: Mapping[str, Predictions], draws: int
) -> list[dict[str, Any]]:
    """Return one row per feature: measures of the pooled predictions, and the headline of each fold."""
    rows = []
    for row in ensemble.fusion_rows(pooled, [], [], draws=draws):
        feature = row["models"]
        line = {"feature": feature, **{key: row[key] for key in row if key.startswith(ensemble.MEASURES)}}
        for fold, part in sorted(runs[feature].items()):
            line[f"fold{fold}"] = ensemble.headline(part)
        rows.append(line)
    return rows


def by_feature(work: Sequence[Cell], done: Mapping[Cell, Predictions]) -> dict[str, dict[int, Predictions]]:
    """Return predictions by feature and fold, for the folds that every feature with a finished cell has."""
    runs: dict[str, dict[int, Predictions]] = {}
    for cell in work:
        if cell in done:
            runs.setdefault(cell.feature, {})[cell.fold] = done[cell]
    common = set.intersection(*map(set, runs.values()))
    return {name: {fold: part for fold, part in of.items() if fold in common} for name, of in runs.items()}


def report(workdir: Path, work: Sequence[Cell], done: Mapping[Cell, Predictions], draws: int) -> str:
    """Write the tables of all cells, and of the finished ones pooled and fused; return the text to print.

    Raises:
      ConfigError: the cells do not have the same data, or no fold is finished by every feature with a
        finished cell.
    """
    runs = by_feature(work, done)
    if not all(runs.values()):
        raise ConfigError(
            f"{workdir}: no fold is finished for all of {', '.join(runs)}: name fewer in --features"
        )
    out = workdir / "report"
    shown = [_write(out, "cells", cell_rows(work, done))]
    pooled = {feature: pool(folds) for feature, folds in runs.items()}
    ensemble.check_same_data(pooled)
    for feature, whole in pooled.items():
        whole.save(workdir / feature, POOLED)
    shown.append(_write(out, "features", feature_rows(runs, pooled, draws)))
    if len(pooled) > 1:
        subsets = ensemble.choose_subsets("all", list(pooled))
        rows = ensemble.fusion_rows(pooled, ensemble.choose_rules("all"), subsets, draws=draws)
        measure = HEADLINE[next(iter(pooled.values())).task]
        ensemble.write(out, "fusion", rows, measure=measure, of="pooled folds")
        shown.append(tables.markdown(ensemble.by_rule(rows, measure)))
    return "\n\n".join(shown)


def _write(out: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write NAME.csv and, with intervals in brackets, NAME.md; return the latter's text."""
    tables.write_csv(out / f"{name}.csv", rows)
    shown = tables.markdown([tables.with_intervals(row) for row in rows])
    tables.write_markdown(out / f"{name}.md", shown)
    return shown


def run(options: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    """Do what the command line, `command`, asks and return the exit code.

    Raises:
      ConfigError: the user can fix it; it is raised before anything is trained if it can be known by then.
    """
    features = [name for name in options.features.split(",") if name]
    if not features or len(set(features)) < len(features):
        raise ConfigError(f"--features {options.features}: name at least one feature, and each once")
    significance.check_draws(options.bootstrap)
    check = check_folder if options.finished else check_trainable
    check(options.workdir)
    work = cells(options.config, features, parse_folds(options.folds), options.workdir)
    done = {cell: part for cell in work if (part := finished(cell, overrides))}
    if options.finished and not done:
        raise ConfigError(f"--finished: {options.workdir} holds no finished cell of these features and folds")
    waiting = [cell for cell in work if cell not in done and not options.finished]
    for cell in {cell.feature: cell for cell in work}.values():
        config = load_config_file(cell.config_arg, overrides)
        build(config)  # errors show now, not when its turn comes
        if waiting:
            _check_scores(config)
    for number, cell in enumerate(work, start=1):
        label = f"{number}/{len(work)} {cell.name}"
        if cell not in waiting:
            print(f"{label}: {'already finished' if cell in done else 'not finished'}", flush=True)
            continue
        print(f"{label}: {cell.workdir}", flush=True)
        begin = time.monotonic()
        code = train(cell, overrides, options.quiet)
        if code:
            # After any other exit code it would fail again.
            stopped = code < 0 or code in (EXIT_CODE, INTERRUPTED)
            goes_on = "; run the same command again to resume" * stopped
            print(f"{label}: stopped with exit code {code}{goes_on}", flush=True)
            return code if code > 0 else 1
        print(f"{label}: finished after {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
        done[cell] = predictions.load(cell.workdir, SPLIT)
    shown = report(options.workdir, work, done, options.bootstrap)
    environment.save(options.workdir, command)
    print(shown)
    return 0


def _resumable(options: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    try:
        return run(options, overrides, command)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.crossval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, help="configs/NAME.py[:presets]; it must have the presets feature and fold"
    )
    parser.add_argument("--features", required=True, help="such as log_mel,mfcc,cqt")
    parser.add_argument("--folds", default="1-5", help="such as 1-5 or 1,3 (default: %(default)s)")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of all runs and tables")
    parser.add_argument(
        "--bootstrap", type=int, default=1000, help="bootstrap draws; 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--finished", action="store_true", help="train nothing; write the tables of what is finished"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, 2 for what the user can fix, 75 or 130 if stopped, or a run's exit code."""
    options, overrides = _parser().parse_known_args(arguments)
    command = environment.command_line("rann_jax.crossval", sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _resumable(options, overrides, command))


if __name__ == "__main__":
    sys.exit(main())

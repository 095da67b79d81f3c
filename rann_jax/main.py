"""Train, evaluate and resume.

  python -m rann_jax.main --config configs/quickstart.py --workdir runs/quickstart

trains to the end, or resumes from the last checkpoint in the workdir. Any key of the config can be set on the
command line: --config.seed=1, --config.data_dir=DIR. So can options of the front end, the optimiser, the
augmentation and the data set that the config file leaves at their defaults: --config.feature.fmin=20,
--config.augment.gain={}. Presets follow the file name after a colon:
--config configs/esc50.py:fold=2,size=small.

The same command with --mode=eval only scores the run; --config.eval.KEY=VALUE changes what is scored and how.
Without --config, --mode=eval scores as the run itself did. --checkpoint=best scores the best checkpoint
instead of the latest, and keeps its predictions as predictions/SPLIT.best.npz beside the latest's.

A run can span several processes. On a TPU slice, in a Slurm step, under Open MPI and in a Kubernetes job they
find each other; elsewhere, start each with --coordinator=HOST:PORT --num_processes=N --process_id=K.

SIGTERM or Ctrl-C stops a run: all of its processes save at the same step and exit with code 75, and the same
command resumes from there. Before the first step there is nothing to save: SIGTERM then ends a single process
at once and several processes within seconds, with the same code. A second Ctrl-C interrupts at once.

Every JAX setting is also a flag: --jax_platforms=cpu, --jax_num_cpu_devices=2.

Compiled programs are cached in ~/.cache/rann_jax/compiled. --jax_compilation_cache_dir=DIR moves the cache;
--nojax_enable_compilation_cache turns it off.

After the run, the workdir holds config.json, environment.json, metrics.jsonl, checkpoints/,
predictions/SPLIT.npz and .json and, if tensorboardX is installed, tensorboard/. `python -m rann_jax.report
WORKDIR` turns it into a web page.
"""

import errno
import logging as stdlib_logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from input_pipeline.preparation import prepare
from input_pipeline.prepared import Prepared
from rann_jax import distributed
from rann_jax.command_line.config_file import check_keys, collecting_notes, define_config, explaining
from rann_jax.command_line.program import guarded, one_line
from rann_jax.devices import compilation_cache
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.evaluate import check_best_metric, check_splits, check_task, evaluate_checkpoint, readable
from rann_jax.exit_codes import INTERRUPTED, RESUMABLE
from rann_jax.experiment import Experiment, build, check_labels, data_options
from rann_jax.saved import environment, lock
from rann_jax.saved import workdir as workdirs
from rann_jax.train import train
from rann_jax.training import pretrained
from rann_jax.training.compiled import training_mesh
from rann_jax.training.preemption import PreemptedError, exiting
from rann_jax.training.trace import NO_STEPS, parse_steps

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_CONFIG = define_config()
flags.declare_key_flag("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for all that the run writes; created if missing.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (or resume), or only evaluate.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Which checkpoint --mode=eval scores. The best is chosen by config.best_metric; if that is a test score, "
    "the checkpoint was selected on the split it is scored on. Its predictions are kept as SPLIT.best.npz "
    "and SPLIT.best.json.",
)
_QUIET = flags.DEFINE_bool("quiet", False, "No progress bars and no overview.")
_PROFILE = flags.DEFINE_string(
    "profile", None, "START:STOP: trace these steps, and keep the profile in the workdir's folder `profile`."
)
_NOTES = flags.DEFINE_bool("notes", True, "Print what a config that reads the data has found in it.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if no cluster is detected.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes; needs --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Index of this process, from 0; needs --coordinator.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    distributed.HEARTBEAT_SECONDS,
    "A process that is silent for this many seconds is considered dead, and the others stop.",
    lower_bound=1,
)


def run(
    config: ConfigDict | None,
    workdir: Path,
    *,
    mode: str,
    checkpoint: str,
    quiet: bool,
    command: str = "",
    profile: range = NO_STEPS,
) -> dict[str, float]:
    """Do what the command line asks and return the scores of the last evaluation.

    `command` is kept for the report; `profile` are the steps to trace.

    Raises:
      ConfigError, DataError, OSError: the user can fix it; the message is one line.
      DivergedError: the loss is not finite.
    """
    check = workdirs.check_trainable if mode == "train" else workdirs.check_folder
    check(workdir)
    if mode == "train" and checkpoint != "latest":
        raise ConfigError("--checkpoint is for --mode=eval: leave it out; training resumes from the latest")
    if mode == "eval":
        saved = workdirs.load_config(workdir)
        config = config or saved
    elif config is None:
        raise ConfigError("--config is missing: name one, such as configs/quickstart.py")
    experiment = build(config)
    check_splits(config)
    if mode == "train":  # older runs were started without this check; they can still be scored
        check_best_metric(config)
    workdirs.check_same_config(workdir, config, free=workdirs.SCORING if mode == "eval" else ())
    if mode == "eval":
        return evaluate_checkpoint(experiment, _data(config, config.eval.splits, quiet), workdir, checkpoint)
    training_mesh(experiment)  # refuses what the devices cannot share, before the data is prepared
    source = _weights(experiment, workdir)
    with lock.training(workdir):
        # What was read before may be of the past: another run may have held the lock until now.
        workdirs.check_same_config(workdir, config)
        if source is None or workdirs.has_checkpoint(workdir):
            source = _weights(experiment, workdir)
        prepared = _data(config, config.splits, quiet)
        return train(
            experiment,
            prepared,
            workdir,
            source=source,
            show_progress=not quiet,
            command=command,
            profile=profile,
        )


def _weights(experiment: Experiment, workdir: Path) -> pretrained.Source | None:
    """Return the weights of config.init_from if the workdir's run has yet to begin."""
    return None if workdirs.has_checkpoint(workdir) else pretrained.load(experiment)


def _data(config: ConfigDict, uses: Iterable[str], quiet: bool) -> Prepared:
    """Return the prepared copy; `uses` are the keys of config.splits that are read."""
    splits = {use: config.splits[use] for use in uses}
    prepared = prepare(**data_options(config), splits=splits, progress=not quiet and distributed.is_primary())
    check_labels(config, prepared.labels)
    check_task(config, prepared, splits.values())
    # Hosts with disks of their own prepare it each for itself, at different speeds.
    distributed.wait_for_all("the data is prepared", seconds=distributed.PREPARE_SECONDS)
    return prepared


def main() -> None:
    """Run the program and exit.

    Exit codes: 0 for success; 1 if the loss diverged; 2 if the user can fix the error; 75 if the run was told
    to stop (SIGTERM, Ctrl-C) and has saved, or had nothing to save; 130 if Ctrl-C interrupted it before it
    could save. After 75 and 130 the same command resumes the run.
    """
    jax.config.config_with_absl()  # makes every JAX setting a flag, such as --jax_platforms=cpu
    try:
        code = guarded(lambda: app.run(_program, flags_parser=_parse_flags))
    except SystemExit as end:
        if end.code in (0, None):  # all processes exit with the same code, as they do with RESUMABLE
            raise
        if end.code == RESUMABLE:
            distributed.leave_together(RESUMABLE)
        code = end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        code = 1
    distributed.leave(code, at_once=code == INTERRUPTED)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    with explaining(argv), collecting_notes() as notes:
        try:
            rest = flags.FLAGS(argv)
        except SystemExit as end:
            if end.code == 1 and any(argument.lstrip("-").startswith(("help", "?")) for argument in argv):
                raise SystemExit(0) from None  # to abseil, who asks for help has failed
            raise
        check_keys(flags.FLAGS)
    for line in notes if _NOTES.value else ():
        print(line, file=sys.stderr)
    if len(rest) > 1:
        raise ConfigError(
            f"{rest[1]!r} is not understood: flags begin with --, values follow an =; see --help"
        )
    return rest


def _program(_: Sequence[str]) -> int:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax logs every file it writes
    # When a save fails, each of its hundreds of writes would log a traceback and bury the line that matters.
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    workdir = _WORKDIR.value
    if not workdir:
        raise ConfigError("--workdir is missing: name a folder for the run, such as runs/quickstart")
    profile = parse_steps(_PROFILE.value) if _PROFILE.value is not None else NO_STEPS
    if profile and _MODE.value != "train":
        raise ConfigError("--profile is for training: leave it out, or use --mode=train")
    compilation_cache.enable()
    return _work(Path(workdir), profile)


def _join() -> None:
    distributed.start(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, heartbeat_seconds=_HEARTBEAT.value
    )


def _work(workdir: Path, profile: range) -> int:
    try:
        told_to_stop = exiting if _MODE.value == "train" else nullcontext
        with told_to_stop():
            _join()
            with told_to_stop():  # now by any of the processes that have joined
                scores = run(
                    _CONFIG.value,
                    workdir,
                    mode=_MODE.value,
                    checkpoint=_CHECKPOINT.value,
                    quiet=_QUIET.value,
                    command=environment.command_text("rann_jax.main", sys.argv[1:]),
                    profile=profile,
                )
    except DivergedError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except PreemptedError as error:
        print(error, file=sys.stderr)
        return RESUMABLE
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        full = f"{workdir}: {os.strerror(error.errno)}: free space, then run this again"
        raise ConfigError(full) from error
    if distributed.is_primary():
        for line in readable(scores):
            print(line)
    return 0


if __name__ == "__main__":
    main()

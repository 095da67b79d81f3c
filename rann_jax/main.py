"""Train, evaluate and resume.

  python -m rann_jax.main --config configs/quickstart.py --workdir runs/quickstart

trains to the end, or goes on from the last checkpoint in the workdir. Any key of the config can be set from
here: --config.seed=1, --config.data_dir=DIR; so can options of the front end, the optimiser, the augmentation
and the data set that the file leaves at their defaults: --config.feature.fmin=20, --config.augment.gain={}.
Presets follow the file after a colon: --config configs/esc50.py:fold=2,size=small.

The same with --mode=eval only scores it, on other splits or in another way if --config.eval.KEY=VALUE says
so; --mode=eval without --config scores as the run did. With --checkpoint=best that checkpoint is scored, and
its predictions are kept as predictions/SPLIT.best.npz beside the latest's.

Several processes share a run: on a TPU slice, in a Slurm step, under Open MPI and in a Kubernetes job they
find each other; elsewhere each gets --coordinator=HOST:PORT --num_processes=N --process_id=K. SIGTERM or
Ctrl-C to any of them, and all save at the same step and leave with exit code 75: the same command goes on
from there. A second Ctrl-C interrupts at once.
Every setting of JAX is a flag too: --jax_platforms=cpu, --jax_num_cpu_devices=2.

Compiled programs are kept in ~/.cache/rann_jax/compiled; --jax_compilation_cache_dir=DIR keeps them
elsewhere, --nojax_enable_compilation_cache nowhere.

The workdir then holds config.json, environment.json, metrics.jsonl, checkpoints/, predictions/SPLIT.npz and
tensorboard/. `python -m rann_jax.report WORKDIR` makes a page of it.
"""

import errno
import logging as stdlib_logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from input_pipeline.prepare import prepare
from rann_jax import compilation_cache, distributed, environment, lock, pretrained
from rann_jax import workdir as workdirs
from rann_jax.config_file import check_keys, define_config, explaining
from rann_jax.errors import ConfigError, DivergedError
from rann_jax.evaluate import check_best_metric, check_splits, evaluate_checkpoint, readable
from rann_jax.experiment import build, check_labels, data_options
from rann_jax.preemption import EXIT_CODE, INTERRUPTED, PreemptedError
from rann_jax.program import guarded, one_line
from rann_jax.train import train

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_CONFIG = define_config()
flags.declare_key_flag("config")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made where it does not exist.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (or go on), or only evaluate.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Which checkpoint --mode=eval scores. Best is by config.best_metric: where that is the test split's, the "
    "score is chosen on it. Its predictions are kept as SPLIT.best.npz and SPLIT.best.json.",
)
_QUIET = flags.DEFINE_bool("quiet", False, "No progress bars and no overview.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where nothing else says it.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of this run, where nothing says it.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    distributed.HEARTBEAT_SECONDS,
    "A process that is silent for so long is given up, and the others stop.",
    lower_bound=1,
)


def run(
    config: ConfigDict | None, workdir: Path, *, mode: str, checkpoint: str, quiet: bool, command: str = ""
) -> dict[str, float]:
    """What the command line does, and the scores of the last evaluation; `command` is kept for the report.

    Raises:
      ConfigError, DataError, OSError: what the user can mend, in one line.
      DivergedError: the loss is not finite.
    """
    check = workdirs.check_trainable if mode == "train" else workdirs.check_folder
    check(workdir)
    if mode == "train" and checkpoint != "latest":
        raise ConfigError("--checkpoint is for --mode=eval: training goes on from the latest; leave it out")
    if mode == "eval":
        saved = workdirs.load_config(workdir)
        config = config or saved
    elif config is None:
        raise ConfigError("--config is missing: name one, such as configs/quickstart.py")
    experiment = build(config)
    check_splits(config)
    if mode == "train":  # weights of a run that began before this was checked can still be scored
        check_best_metric(config)
    workdirs.check_same_config(workdir, config, free=workdirs.SCORING if mode == "eval" else ())
    begins = mode == "train" and not workdirs.has_checkpoint(workdir)
    source = pretrained.load(experiment) if begins else None
    splits = {use: config.splits[use] for use in (config.splits if mode == "train" else config.eval.splits)}
    prepared = prepare(**data_options(config), splits=splits, progress=not quiet and distributed.is_primary())
    check_labels(config, prepared.labels)
    if mode == "eval":
        return evaluate_checkpoint(experiment, prepared, workdir, checkpoint)
    with lock.training(workdir):
        return train(experiment, prepared, workdir, source=source, show_progress=not quiet, command=command)


def main() -> None:
    """The program: exit code 0; 2 where the user can mend the error; 1 where the loss diverged; 75 where the
    run was told to stop (SIGTERM, Ctrl-C) and has saved, 130 where a second Ctrl-C did not let it: then the
    same command goes on.
    """
    jax.config.config_with_absl()  # every setting of JAX is a flag, as --jax_platforms=cpu
    try:
        code = guarded(lambda: app.run(_program, flags_parser=_parse_flags))
    except SystemExit as end:
        if end.code in (0, EXIT_CODE, None):  # which all processes have
            raise
        code = end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        code = 1
    distributed.leave(code, at_once=code == INTERRUPTED)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    with explaining(argv):
        rest = flags.FLAGS(argv)
        check_keys(flags.FLAGS)
    if len(rest) > 1:
        raise ConfigError(
            f"{rest[1]!r} is not understood: flags begin with --, values follow an =; see --help"
        )
    return rest


def _program(_: Sequence[str]) -> int:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
    # Where a save fails, each of its hundreds of writes would add a traceback to the one line that counts.
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    workdir = _WORKDIR.value
    if not workdir:
        raise ConfigError("--workdir is missing: name the folder of the run, such as runs/quickstart")
    compilation_cache.enable()
    return _work(Path(workdir))


def _work(workdir: Path) -> int:
    try:
        distributed.start(
            _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, heartbeat_seconds=_HEARTBEAT.value
        )
        scores = run(
            _CONFIG.value,
            workdir,
            mode=_MODE.value,
            checkpoint=_CHECKPOINT.value,
            quiet=_QUIET.value,
            command=environment.command_line("rann_jax.main", sys.argv[1:]),
        )
    except DivergedError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except PreemptedError as error:
        print(error, file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
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

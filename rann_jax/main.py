"""Train, evaluate and resume.

  python -m rann_jax.main --config configs/quickstart.py --workdir runs/quickstart

trains to the end, or goes on from the last checkpoint in the workdir. The same with --mode=eval only
scores it. Any key of the config can be set from here: --config.seed=1, --config.data_dir=DIR; presets
follow the file after a colon: --config configs/esc50.py:fold=2,size=small.

The workdir then holds config.json, environment.json, metrics.jsonl, checkpoints/, predictions/SPLIT.npz and
tensorboard/. `python -m rann_jax.report WORKDIR` makes a page of it.
"""

import errno
import logging as stdlib_logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from input_pipeline.errors import DataError
from input_pipeline.prepare import prepare
from rann_jax import environment, pretrained
from rann_jax import workdir as workdirs
from rann_jax.checkpoint import has_checkpoint
from rann_jax.config_file import explaining
from rann_jax.errors import ConfigError
from rann_jax.evaluate import evaluate_checkpoint, readable
from rann_jax.experiment import build, check_labels, data_options
from rann_jax.train import DivergedError, train

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: configs/NAME.py[:presets].")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made where it does not exist.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train (or go on), or only evaluate.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", ["latest", "best"], "Which checkpoint --mode=eval scores."
)
_QUIET = flags.DEFINE_bool("quiet", False, "No progress bars and no overview.")


def run(
    config: ConfigDict | None, workdir: Path, *, mode: str, checkpoint: str, quiet: bool, command: str = ""
) -> dict[str, float]:
    """What the command line does, and the scores of the last evaluation; `command` is kept for the report.

    Raises:
      ConfigError, DataError: what the user can mend, in one line.
      DivergedError: the loss is not finite.
    """
    if mode == "eval":
        saved = workdirs.load_config(workdir)
        config = config or saved
    elif config is None:
        raise ConfigError("--config is missing: name one, such as configs/quickstart.py")
    experiment = build(config)
    workdirs.check_same_config(workdir, config)
    begins = mode == "train" and not has_checkpoint(workdir)
    source = pretrained.load(experiment) if begins else None
    prepared = prepare(**data_options(config), progress=not quiet)
    check_labels(config, prepared.labels)
    if mode == "eval":
        return evaluate_checkpoint(experiment, prepared, workdir, checkpoint)
    workdirs.save_config(workdir, config)
    environment.save(workdir, command)
    return train(experiment, prepared, workdir, source=source, show_progress=not quiet)


def main() -> None:
    """The program: exit code 0; 2 where the user can mend the error; 1 where the loss diverged."""
    app.run(_guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        with explaining(argv):
            rest = flags.FLAGS(argv)
            if _CONFIG.value is not None:
                _CONFIG.value.keys()  # a file that could not be loaded is told only now
    except ConfigError as error:
        _exit(str(error))
    if len(rest) > 1:
        _exit(f"{rest[1]!r} is not understood: flags begin with --; see --help")
    return rest


def _guarded(_: Sequence[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes
    # Where a save fails, each of its hundreds of writes would add a traceback to the one line that counts.
    stdlib_logging.getLogger("asyncio").setLevel(stdlib_logging.CRITICAL)
    if not _WORKDIR.value:
        _exit("--workdir is missing: name the folder of the run, such as runs/quickstart")
    try:
        scores = run(
            _CONFIG.value,
            Path(_WORKDIR.value),
            mode=_MODE.value,
            checkpoint=_CHECKPOINT.value,
            quiet=_QUIET.value,
            command=environment.command_line("rann_jax.main", sys.argv[1:]),
        )
    except (ConfigError, DataError) as error:
        _exit(str(error))
    except DivergedError as error:
        _exit(str(error), code=1)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _exit(f"{_WORKDIR.value}: {os.strerror(error.errno)}: free space, then run this again")
    for line in readable(scores):
        print(line)


def _exit(message: str, code: int = 2) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

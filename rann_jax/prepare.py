"""Prepare the data of an experiment before training, or estimate what that would cost.

  python -m rann_jax.prepare --config configs/audioset.py --config.data_dir=DIR --dry-run
  python -m rann_jax.prepare --config configs/audioset.py --config.data_dir=DIR

Training does the same when it starts, but a large data set is better prepared on a machine with many cores.
It prints the folder of the copy last. The copy may be moved, also to other hosts, and then be named in place
of the source files, --config.data_dir=COPY: these are then not looked at.

If the command is killed, running it again continues after the last finished shard.
--config.prepare.storage=flac stores fewer bytes, which take longer to read; the dry run prints both costs.
--config.prepare.workers=N uses N processes instead of one per core.

Data sets of millions of clips can be prepared by an Apache Beam runner (extra `beam`). Its flags are given as
one argument:

  --beam "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=16"
  --beam "--runner=FlinkRunner --flink_master=HOST:8081 --environment_type=LOOPBACK"

Its workers need this package, and must see the source folder and the prepared copy under the same paths.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence

import joblib
from ml_collections import ConfigDict

from input_pipeline.copies import named_copy
from input_pipeline.errors import DataError
from input_pipeline.estimate import Estimate, estimate
from input_pipeline.plan import plan, prepared_root
from input_pipeline.preparation import prepare
from input_pipeline.prepared import Prepared
from rann_jax.command_line.config_file import load_config_file
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.experiment import data_options
from rann_jax.schema import check_values

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Return a number of bytes in readable units.

    >>> size(1.28e12)
    '1.28 TB'
    """
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Return a time in readable units.

    >>> duration(90)
    '1.5 min'
    """
    units = ((1, "s"), (60, "min"), (3600, "h"))
    # From 59.95 on, a smaller unit would be shown as 60.
    divisor, unit = next((of for of in units if seconds / of[0] < 59.95), units[-1])
    count = seconds / divisor
    return f"{count:.3g} {unit}" if count < 999.5 else f"{count:,.0f} {unit}"


def forecast(config: ConfigDict, cost: Estimate) -> Iterator[str]:
    """Yield the lines of a dry run."""
    for split, listed in cost.listed.items():
        missing = cost.missing[split]
        yield f"{split}: {listed} clips listed" + (f", {missing} of them unusable unheard" * (missing > 0))
    yield f"of {cost.sampled} clips prepared as a sample, {cost.unusable} are unusable; from the others:"
    yield f"sound: {duration(cost.usable * cost.seconds)}, {cost.seconds:.3g} s a clip"
    workers = config.prepare.workers or joblib.cpu_count()
    for kind, one in cost.costs.items():
        yield (
            f"{kind}: {size(cost.usable * one.bytes)}, "
            f"{duration(cost.usable * one.prepare_seconds / workers)} to prepare on {workers} cores, "
            f"read at {1 / one.read_seconds:.0f} clips/s a core"
        )
    root = prepared_root(config.prepared_dir)
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    yield f"free at {root}: {size(shutil.disk_usage(existing).free)}"


def summary(prepared: Prepared) -> Iterator[str]:
    """Yield lines that say what a prepared copy holds, and where it is."""
    for split in prepared.splits:
        manifest = prepared.manifest(split)
        clipped = sum(row.clipped > 0 for row in manifest.rows)
        yield (
            f"{split}: {len(manifest.rows)} of {manifest.listed} clips, "
            f"fingerprint {prepared.fingerprint(split)[:12]}"
            + (f", {clipped} clips have clipped samples" if clipped else "")
        )
    yield str(prepared.folder)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError, DataError: the user can fix it.
    """
    config = load_config_file(options.config, overrides)
    check_values(config)
    data = {**data_options(config), "splits": config.splits.to_dict(), "progress": not options.quiet}
    if not options.dry_run:
        lines = summary(prepare(**data, beam=options.beam))
    else:
        if named_copy(config.data_dir):
            raise DataError(
                f"config.data_dir: {config.data_dir} is a finished copy: there is nothing to prepare"
            )
        cost = estimate(plan(**data))
        if not cost.sampled:
            raise DataError(f"config.data_dir: no sound of {data['name']} was found in {config.data_dir}")
        lines = forecast(config, cost)
    print("\n".join(lines))
    return 0


def _parser() -> Parser:
    parser = Parser("rann_jax.prepare", __doc__)
    parser.add_argument("--config", required=True, help="configs/NAME.py[:presets]")
    parser.add_argument("--dry-run", action="store_true", help="print clips, hours, bytes; prepare nothing")
    parser.add_argument("--beam", help="flags of an Apache Beam runner to prepare with, as one argument")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    options, overrides = _parser().parse_known_args(arguments)
    return guarded(lambda: run(options, overrides))


if __name__ == "__main__":
    sys.exit(main())

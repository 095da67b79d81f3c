"""Convert a PyTorch file to a workdir with weights, front end, rate and labels, like that of a trained run.

  python -m rann_jax.convert Cnn14_mAP=0.431.pth --config configs/audioset.py:model=cnn14 --workdir runs/cnn14

The workdir can then be evaluated (rann_jax.main --mode=eval, with the same config and its data_dir), used
(rann_jax.predict, rann_jax.Tagger, rann_jax.export) or fine-tuned (--config.init_from=runs/cnn14). The config
gives what the file lacks: network, front end, sample rate and task. Overrides follow as in rann_jax.main,
such as --config.sample_rate=16000. If the file holds PANNs' own front end, it must match the config's.

Class names come from --labels, a csv with the columns index and display_name, such as AudioSet's official
class_labels_indices.csv. The default is a file of that name beside the weights.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from input_pipeline.source import check_classes, read_table
from rann_jax.command_line.config_file import load_config_file
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.saved import environment
from rann_jax.saved.trained import Trained, save_trained
from rann_jax.saved.workdir import check_unused
from rann_jax.training import pretrained

CLASSES_FILE = "class_labels_indices.csv"


def read_labels(path: Path) -> list[str]:
    """Return the class names from a csv with the columns index (0, 1, 2...) and display_name.

    Raises:
      ConfigError: there is no such file.
      DataError: it is not such a table, or its names are not valid classes.
    """
    if not path.is_file():
        raise ConfigError(
            f"--labels: {path} does not exist: name AudioSet's {CLASSES_FILE}, or a csv like it"
        )
    rows = read_table(path, ("index", "display_name"))
    if [row["index"] for row in rows] != [str(number) for number in range(len(rows))]:
        raise ConfigError(f"--labels: the column index of {path} does not count 0, 1, 2...: sort its rows")
    labels = [row["display_name"] for row in rows]
    check_classes(labels, f"--labels: {path}, column display_name")
    return labels


def convert(config: ConfigDict, labels: Sequence[str], workdir: Path) -> pretrained.Beginning:
    """Write the weights that config.init_from names as a checkpoint of step 0.

    Returns:
      The arrays that were taken and those that were skipped.

    Raises:
      ConfigError: the file or the config cannot be used, or the workdir already holds a run.
    """
    check_unused(workdir)
    experiment = build(config)
    source = pretrained.load(experiment)
    if source is None:
        raise ConfigError("config.init_from is empty: name the file to convert")
    _check_classes(source, config, labels)
    beginning = pretrained.begin(source, experiment, labels)
    variables = unflatten_dict(dict(beginning.loaded))
    save_trained(Trained(experiment, variables, tuple(labels)), workdir, "--workdir")
    return beginning


def _check_classes(source: pretrained.Source, config: ConfigDict, labels: Sequence[str]) -> None:
    outputs = pretrained.classes_of(source, config.model.name)
    if outputs != config.num_classes:
        raise ConfigError(
            f"{source.where}: has {outputs} classes, but config.num_classes={config.num_classes}: set "
            f"--config.num_classes={outputs}"
        )
    if outputs != len(labels):
        raise ConfigError(f"--labels: {len(labels)} names, but {source.where} has {outputs} classes")


def run(options: argparse.Namespace, overrides: Sequence[str], command: str) -> int:
    """Do what the command line, `command`, asks and return the exit code.

    Raises:
      ConfigError, DataError: the user can fix it.
    """
    labels = read_labels(options.labels or options.file.parent / CLASSES_FILE)
    config = load_config_file(options.config, overrides)
    config.init_from = str(options.file)
    beginning = convert(config, labels, options.workdir)
    environment.save(options.workdir, command)
    print(beginning)
    print(f"{config.model.name}, {len(labels)} classes, {config.sample_rate} Hz: {options.workdir}")
    return 0


def _parser() -> Parser:
    parser = Parser("rann_jax.convert", __doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="PyTorch file (.pth) or .safetensors")
    parser.add_argument("--config", required=True, help="configs/NAME.py[:presets] of the network")
    parser.add_argument("--labels", type=Path, metavar="CSV", help=f"default: {CLASSES_FILE} beside FILE")
    parser.add_argument("--workdir", required=True, type=Path, help="workdir to create")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    options, overrides = _parser().parse_known_args(arguments)
    command = environment.command_text("rann_jax.convert", sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: run(options, overrides, command))


if __name__ == "__main__":
    sys.exit(main())

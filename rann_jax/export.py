"""Write a trained model in a form that other programs load, without rann_jax.

  --to stablehlo    the whole model, waveform in, probabilities out, front end and weights included, for any
                    batch size, on CPU, GPU and TPU. With JAX and flatbuffers:
                      model = jax.export.deserialize(open("model.stablehlo", "rb").read())
                      model.call(wave)  # (B, samples) float32, full scale +-1, -> (B, classes)
  --to safetensors  the weights only; the network and the front end are not in it.

model.json beside it says what goes in and out: rate, samples, task, labels, and the whole config.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rann_jax.errors import ConfigError
from rann_jax.program import guarded
from rann_jax.tagger import Tagger
from rann_jax.workdir import replace_atomically

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(tagger: Tagger) -> bytes:
    """The model as a serialized jax.export program: wave (B, crop_samples) -> probabilities (B, C), float32.

    B is symbolic. JAX keeps such programs loadable for six months at least.

    Raises:
      ConfigError: the package flatbuffers, with which JAX serializes, is not installed.
    """
    _require("flatbuffers", "stablehlo")
    (batch,) = jax.export.symbolic_shape("batch")
    variables = jax.tree.map(np.asarray, tagger.variables)

    def model(wave: jax.Array) -> jax.Array:
        return tagger.step(variables, wave)

    shape = jax.ShapeDtypeStruct((batch, tagger.crop_samples), jnp.float32)
    return bytes(jax.export.export(jax.jit(model), platforms=PLATFORMS)(shape).serialize())


def safetensors(tagger: Tagger) -> bytes:
    """The averaged weights by Flax's names, such as params/fc2/kernel; the header has `description`.

    Raises:
      ConfigError: the package safetensors is not installed.
    """
    _require("safetensors", "safetensors")
    from safetensors.numpy import save

    flat = traverse_util.flatten_dict(tagger.variables, sep="/")
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
    return save(arrays, metadata={"model": json.dumps(description(tagger))})


def _require(package: str, form: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f'--to {form} needs {package}: pip install "rann-jax[export]"') from error


FORMATS: dict[str, Callable[[Tagger], bytes]] = {"stablehlo": stablehlo, "safetensors": safetensors}


def description(tagger: Tagger) -> dict[str, Any]:
    """What a program must know to use the model; plain JSON."""
    return {
        "input": {"name": "wave", "shape": ["batch", tagger.crop_samples], "dtype": "float32"},
        "output": {"name": "probabilities", "shape": ["batch", len(tagger.labels)], "dtype": "float32"},
        "sample_rate": tagger.sample_rate,
        "seconds": tagger.window_seconds,
        "task": tagger.task,
        "labels": list(tagger.labels),
        "config": json.loads(tagger.experiment.config.to_json_best_effort()),
    }


def run(options: argparse.Namespace) -> int:
    """What the command line does; returns the exit code.

    Raises:
      ConfigError: the workdir has no such checkpoint, or a package is missing.
    """
    tagger = Tagger.load(options.workdir, checkpoint=options.checkpoint)
    folder = options.out or options.workdir / "export"
    content = FORMATS[options.to](tagger)
    path = folder / f"model.{options.to}"
    with replace_atomically(path, "wb") as file:
        file.write(content)
    with replace_atomically(folder / "model.json") as file:
        file.write(json.dumps(description(tagger), indent=2) + "\n")
    print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rann_jax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="folder of a trained model")
    parser.add_argument("--to", choices=tuple(FORMATS), required=True, help="the format")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: WORKDIR/export")
    parser.add_argument(
        "--checkpoint", choices=("latest", "best"), default="latest", help="default: %(default)s"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 where the user can mend what is wrong."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

"""Export a trained model to a format that other programs can load without rann_jax.

  --to stablehlo    the whole model, waveform in, probabilities out, with front end and weights, for
                    batches of one or more, on CPU, GPU and TPU. To load it with JAX and flatbuffers:
                      model = jax.export.deserialize(open("model.stablehlo", "rb").read())
                      model.call(wave)  # (B, samples) float32, full scale +-1, -> (B, classes)
  --to onnx         the same for onnxruntime and others, also for any batch size. Front ends that cannot be
                    expressed in ONNX (cqt, cwt, tempogram) are left out: the model then takes their image
                    instead of the waveform, and model.onnx.json's input says which. It always computes in
                    float32, because ONNX has no convolution in bfloat16. On CPUs this package transforms
                    log-mels in float64, so probabilities of nearly silent clips can differ by thousandths:
                      session = onnxruntime.InferenceSession("model.onnx")
                      (probabilities,) = session.run(None, {"wave": wave})
  --to safetensors  the weights only, without the network and the front end.

model.FORMAT.json beside the model describes it: content ("model" or "weights"), input and output of a whole
model, sample rate, seconds, task, labels, and the whole config.
"""

import argparse
import dataclasses
import functools
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
from ml_collections import ConfigDict

from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded, require
from rann_jax.devices import compilation_cache
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.saved.workdir import check_folder, replace_atomically
from rann_jax.steps import make_eval_step
from rann_jax.tagger import Tagger

PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file's content, and the input's name and sizes without the batch axis; weights have no input."""

    content: bytes
    input: str = ""
    sizes: tuple[int, ...] = ()


def stablehlo(tagger: Tagger) -> Exported:
    """Return a serialized jax.export program: wave (B, crop_samples) -> probabilities (B, C), float32.

    B is symbolic. JAX keeps such programs loadable for at least six months.

    Raises:
      ConfigError: the package flatbuffers, which JAX needs to serialize, is not installed.
    """
    require("flatbuffers", for_what="--to stablehlo", extra="export")
    (batch,) = jax.export.symbolic_shape("batch")
    variables = jax.tree.map(np.asarray, tagger.variables)
    experiment = tagger.experiment  # its network is for any platform, the tagger's own for this one
    step = make_eval_step(experiment.model, experiment.front_end, task=tagger.task)

    def model(wave: jax.Array) -> jax.Array:
        return step(variables, wave)

    shape = jax.ShapeDtypeStruct((batch, tagger.crop_samples), jnp.float32)
    program = jax.export.export(jax.jit(model), platforms=PLATFORMS)(shape)
    return Exported(bytes(program.serialize()), "wave", (tagger.crop_samples,))


def onnx(tagger: Tagger) -> Exported:
    """Return an ONNX model: wave (B, crop_samples), or image (B, F, T), -> probabilities (B, C), float32.

    It computes in float32 throughout; a run with `config.dtype` bfloat16 keeps its network and weights.

    Raises:
      ConfigError: the package onnx is not installed, or the network has an operation without a conversion
        rule.
    """
    require("onnx", for_what="--to onnx", extra="onnx")
    from rann_jax.interop.onnx_program import to_onnx
    from rann_jax.interop.onnx_rules import Unsupported

    config = ConfigDict(tagger.experiment.config.to_dict() | {"dtype": "float32"})
    config.model.remat = False  # remat matters for the backward pass only, and has no conversion rule
    experiment = build(config)
    variables = jax.tree.map(np.asarray, tagger.variables)
    whole = make_eval_step(experiment.model, experiment.front_end, task=tagger.task)
    network = make_eval_step(experiment.model, lambda image: image, task=tagger.task)
    parts = {"wave": (whole, (tagger.crop_samples,))}
    wave = jax.ShapeDtypeStruct((1, tagger.crop_samples), jnp.float32)
    inputs = jax.eval_shape(experiment.front_end, wave)
    if not isinstance(inputs, dict):  # otherwise the network needs the waveform itself
        parts["image"] = (network, inputs.shape[1:])
    lacking = ""
    for name, (step, sizes) in parts.items():
        try:
            model = to_onnx(functools.partial(step, variables), sizes, name=name, result="probabilities")
            return Exported(model.SerializeToString(), name, sizes)
        except Unsupported as error:
            lacking = str(error)
    raise ConfigError(f"--to onnx: there is no rule for the operation {lacking}: use --to stablehlo")


def safetensors(tagger: Tagger) -> Exported:
    """Return the moving average of the weights by Flax name, such as params/fc2/kernel.

    The header has `description`.

    Raises:
      ConfigError: the package safetensors is not installed.
    """
    require("safetensors", for_what="--to safetensors", extra="export")
    from safetensors.numpy import save

    flat = traverse_util.flatten_dict(tagger.variables, sep="/")
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}
    return Exported(save(arrays, metadata={"model": json.dumps(description(tagger))}))


FORMATS: dict[str, Callable[[Tagger], Exported]] = {
    "stablehlo": stablehlo,
    "onnx": onnx,
    "safetensors": safetensors,
}


def description(tagger: Tagger, name: str = "", sizes: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return what a program must know to use the model, whose input is (batch, *sizes), as plain JSON.

    An input named `image` is the output of the front end of `config.feature` for a wave. Without a name, it
    is the description of the weights alone.
    """
    ends = {
        "input": {"name": name, "shape": ["batch", *sizes], "dtype": "float32"},
        "output": {"name": "probabilities", "shape": ["batch", len(tagger.labels)], "dtype": "float32"},
    }
    return {
        "content": "model" if name else "weights",
        **(ends if name else {}),
        "sample_rate": tagger.sample_rate,
        "seconds": tagger.window_seconds,
        "task": tagger.task,
        "labels": list(tagger.labels),
        "config": json.loads(tagger.experiment.config.to_json_best_effort()),
    }


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError: the workdir has no such checkpoint, a package is missing, or the folder cannot be written
        to.
    """
    compilation_cache.enable()
    tagger = Tagger.load(options.workdir, checkpoint=options.checkpoint)
    folder = options.out or options.workdir / "export"
    check_folder(folder, "--out")
    exported = FORMATS[options.to](tagger)
    path = folder / f"model.{options.to}"
    with replace_atomically(path, "wb") as file:
        file.write(exported.content)
    # One per format, because they differ if ONNX cannot express the model's front end.
    with replace_atomically(folder / f"{path.name}.json") as file:
        about = description(tagger, exported.input, exported.sizes)
        file.write(json.dumps(about, indent=2) + "\n")
    if exported.input == "image":
        name = tagger.experiment.config.feature.name
        print(
            f"note: ONNX cannot express {name}, so the model takes feature images instead of sound",
            file=sys.stderr,
        )
    print(path)
    return 0


def _parser() -> Parser:
    parser = Parser("rann_jax.export", __doc__)
    parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="workdir of a trained model")
    parser.add_argument("--to", choices=tuple(FORMATS), required=True, help="the format")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: WORKDIR/export")
    parser.add_argument(
        "--checkpoint", choices=("latest", "best"), default="latest", help="default: %(default)s"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, or 2 if the user can fix the error."""
    options = _parser().parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())

"""Where the time of a training step goes: arithmetic, traffic and time of every stage of a RANN.

    python -m benchmarks.stages --network rann-8x4-6 --batch 32 --dtype bfloat16     # one accelerator
    python -m benchmarks.stages --network rann-4x4-2 --batch 8 --json OUT.json       # CPU

Each stage is compiled and timed alone, forward and back, from random activations of its own shape. FLOPs are
2 per multiply-add, three times the forward pass. Bytes are what XLA's cost analysis says that the compiled
stage reads and writes. The floor of a stage is the longer of its FLOPs at the speed of a large matrix product
and its bytes at the speed of a plain addition, both measured here; that one is its bound. The last row is the
whole step, with Adam and moving averages, from feature images. --dry_run compiles and counts, and times
nothing.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import machine
from rann_jax import models, optimizer, steps
from rann_jax.models.complexity import count_macs
from rann_jax.models.rann import BASE_CHANNELS, BLOCKS_PER_STAGE, RANN, ResidualBlock, temporal_strides
from rann_jax.state import create_state

PACKAGES = ["jax", "jaxlib", "flax"]
CLASSES = 527
BINS, FRAMES_PER_SECOND = 128, 128


class Stage(nn.Module):
    """The blocks of one stage, as `RANN.embed` strings them together."""

    channels: int
    time_stride: int
    first: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, F, T, C) to (B, F / 2, T / stride, channels); the first stage keeps F and T."""
        for block in range(BLOCKS_PER_STAGE):
            strides = (2, self.time_stride) if block == 0 and not self.first else (1, 1)
            x = ResidualBlock(self.channels, strides=strides, dtype=self.dtype)(x, train=True)
        return x


@dataclasses.dataclass(frozen=True)
class Part:
    """A compiled piece of the step.

    Attributes:
      name: as in the table.
      output: shape of its activations, batch left out.
      macs: multiply-adds of its forward pass, all examples.
      compiled: the executable.
      arguments: shapes of its arguments.
    """

    name: str
    output: tuple[int, ...]
    macs: int
    compiled: Any
    arguments: Any

    @property
    def flops(self) -> float:
        """Two for each multiply-add, there and twice back."""
        return 6.0 * self.macs

    @property
    def bytes_accessed(self) -> float:
        """What XLA counts of its own program."""
        return float(self.compiled.cost_analysis()["bytes accessed"])

    def median_seconds(self, repeats: int) -> float:
        """Measured on random arguments."""
        arguments = jax.tree.map(_random, self.arguments)
        return machine.medians(
            {self.name: lambda: jax.block_until_ready(self.compiled(*arguments))}, repeats
        )[self.name]


def _random(shape: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jnp.floating):
        return jax.random.normal(jax.random.key(0), shape.shape, shape.dtype)
    return jnp.zeros(shape.shape, shape.dtype)


def _forward(stage: Stage, statistics: Any, params: Any, x: jax.Array) -> jax.Array:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), statistics)
    return stage.apply({"params": params, "batch_stats": zeros}, x, mutable=["batch_stats"])[0]


def _there_and_back(forward: Callable, params: Any, x: jax.Array, cotangent: jax.Array) -> Any:
    return jax.vjp(forward, params, x)[1](cotangent)


def stage_parts(model: RANN, x: jax.ShapeDtypeStruct) -> Iterator[Part]:
    """The five stages, each from the shape that the one before it gives."""
    for number, time_stride in enumerate(temporal_strides(model.t_m)):
        channels = BASE_CHANNELS * model.width * 2**number
        stage = Stage(channels, time_stride, number == 0, model.dtype)
        variables = jax.eval_shape(stage.init, jax.random.key(0), x)

        forward = functools.partial(_forward, stage, variables["batch_stats"])
        y = jax.eval_shape(forward, variables["params"], x)
        macs = count_macs(jax.make_jaxpr(forward)(variables["params"], x).jaxpr)
        arguments = (variables["params"], x, y)
        there_and_back = jax.jit(functools.partial(_there_and_back, forward))
        compiled = there_and_back.lower(*arguments).compile()
        yield Part(f"stage {number}", y.shape[1:], macs, compiled, arguments)
        x = y


def whole_step(model: RANN, images: jax.ShapeDtypeStruct) -> Part:
    """The training step behind the front end."""
    tx = optimizer.adam(schedule="constant", learning_rate=1e-4, total_steps=1)
    step = steps.make_train_step(model, lambda images: images, tx, task="tagging", ema_decay=0.999)
    state = jax.eval_shape(lambda: create_state(model, tx, jnp.zeros(images.shape, images.dtype), seed=0))
    labels = jax.ShapeDtypeStruct((images.shape[0], CLASSES), jnp.float32)
    arguments = (state, {"audio": images, "labels": labels})
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    macs = count_macs(jax.make_jaxpr(model.apply)(variables, images).jaxpr)
    return Part("whole step", (CLASSES,), macs, jax.jit(step).lower(*arguments).compile(), arguments)


def row(part: Part, taken: float | None, flops: float | None, bandwidth: float | None) -> dict[str, Any]:
    """What the table says of a part; without times where there are none."""
    figures: dict[str, Any] = {
        "part": part.name,
        "output": " x ".join(map(str, part.output)),
        "gflop": part.flops / 1e9,
        "gbyte": part.bytes_accessed / 1e9,
    }
    if taken and flops and bandwidth:
        arithmetic, traffic = part.flops / flops, part.bytes_accessed / bandwidth
        figures |= {
            "ms": taken * 1e3,
            "of matmul": part.flops / taken / flops,
            "of bandwidth": part.bytes_accessed / taken / bandwidth,
            "floor ms": max(arithmetic, traffic) * 1e3,
            "bound": "arithmetic" if arithmetic > traffic else "traffic",
        }
    return figures


def shown(value: Any, head: str) -> str:
    if isinstance(value, float):
        return f"{value:.0%}" if head.startswith("of ") else f"{value:.1f}"
    return str(value)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="rann-4x4-2", help="a RANN (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dry_run", action="store_true", help="compile and count only")
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)

    dtype = jnp.dtype(options.dtype)
    model = models.create(options.network, num_classes=CLASSES, dtype=dtype)
    frames = round(FRAMES_PER_SECOND * models.crop_seconds(options.network))
    images = jax.ShapeDtypeStruct((options.batch, BINS, frames), jnp.float32)
    report = machine.about("benchmarks.stages", arguments, PACKAGES)
    flops = bandwidth = None
    if not options.dry_run:
        flops, bandwidth = machine.matmul_flops(dtype), machine.bandwidth()
        print(f"large matrix product: {flops / 1e12:.3f} TFLOP/s; addition: {bandwidth / 1e9:.1f} GB/s")
    rows = []
    first = jax.ShapeDtypeStruct((*images.shape, 1), dtype)
    for part in [*stage_parts(model, first), whole_step(model, images)]:
        taken = None if options.dry_run else part.median_seconds(options.repeats)
        rows.append(row(part, taken, flops, bandwidth))
    heads = list(rows[0])
    print(machine.markdown(heads, [[shown(line[head], head) for head in heads] for line in rows]))
    if options.json:
        report |= {"matmul_flops": flops, "bandwidth": bandwidth, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

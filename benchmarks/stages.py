"""Show where a training step spends its time: arithmetic, traffic and time of every stage of a RANN.

    python -m benchmarks.stages --network rann-8x4-6 --batch 32 --dtype bfloat16     # one accelerator
    python -m benchmarks.stages --network rann-4x4-2 --batch 8 --json OUT.json       # CPU
    python -m benchmarks.stages --network rann-8x4-6 --batch 8 --dtype bfloat16 --topology v5e:2x2

Each stage is compiled and timed alone, forward and backward, from random activations of its own shape. FLOPs
are 2 per multiply-add and three times the forward pass. Bytes are XLA's estimate of what the compiled stage
reads and writes. The floor of a stage is the longer of two times: its FLOPs at the speed of a large matrix
product and its bytes at the speed of a plain addition, both measured here; `bound` names the longer one. The
last row is the whole step from feature images, with Adam and moving averages. --dry-run compiles and counts
but times nothing; so does --topology, for one chip of a TPU slice that need not be present (extra `tpu`). It
adds memory for temporaries and the cycles that the TPU compiler expects; --lanes 1 shows what packing columns
saves (`rann_jax/models/convolution/packed.py`).
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import SingleDeviceSharding

from benchmarks import machine, ours
from benchmarks.workload import FEATURES, TRAINING, Workload
from rann_jax.command_line.parser import Parser
from rann_jax.compile import expected_cycles, tpu_devices
from rann_jax.devices.compiler import suited, xla_options
from rann_jax.experiment import Experiment
from rann_jax.models.complexity import count_macs
from rann_jax.models.convolution.packed import columns_for, packed
from rann_jax.models.rann import BASE_CHANNELS, RANN, ResidualBlock, temporal_strides

PACKAGES = ["jax", "jaxlib", "flax", "libtpu"]


class Stage(nn.Module):
    """The blocks of one stage, in the order of `RANN.embed`."""

    channels: int
    time_stride: int
    first: bool
    blocks: int
    dtype: Any
    columns: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (B, F, T, C) to (B, F / 2, T / stride, channels); the first stage keeps F and T.

        Both are packed as `columns` says.
        """
        before, after = self.columns
        for block in range(self.blocks):
            strides = (2, self.time_stride) if block == 0 and not self.first else (1, 1)
            columns = (before if block == 0 else after, after)
            residual = ResidualBlock(self.channels, strides=strides, columns=columns, dtype=self.dtype)
            x = residual(x, train=True)
        return x


@dataclasses.dataclass(frozen=True)
class Part:
    """A compiled piece of the step.

    Attributes:
      name: its name in the table.
      output: shape of its activations without the batch.
      flops: two per multiply-add, counting the backward pass as two forward passes; all examples.
      compiled: the executable.
      arguments: shapes of its arguments.
      carries: whether the first result reuses the first argument's memory and is passed to the next call.
    """

    name: str
    output: tuple[int, ...]
    flops: float
    compiled: Any
    arguments: Any
    carries: bool = False

    @property
    def temporaries(self) -> int:
        """Return the bytes of memory between arguments and results."""
        return self.compiled.memory_analysis().temp_size_in_bytes

    @property
    def bytes_accessed(self) -> float:
        """Return the bytes that XLA counts for its own program."""
        return float(self.compiled.cost_analysis()["bytes accessed"])

    def median_seconds(self, repeats: int) -> float:
        """Return the median time of a call on random arguments."""
        arguments = list(jax.tree.map(_random, self.arguments))

        def once() -> Any:
            result = self.compiled(*arguments)
            if self.carries:
                arguments[0] = result[0]
            return result

        return machine.sustained(once, repeats)


def _random(shape: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jnp.floating):
        return jax.random.normal(jax.random.key(0), shape.shape, shape.dtype)
    return jnp.zeros(shape.shape, shape.dtype)


def _forward(stage: Stage, statistics: Any, params: Any, x: jax.Array) -> jax.Array:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), statistics)
    return stage.apply({"params": params, "batch_stats": zeros}, x, mutable=["batch_stats"])[0]


def _there_and_back(forward: Callable, params: Any, x: jax.Array, cotangent: jax.Array) -> Any:
    return jax.vjp(forward, params, x)[1](cotangent)


def _packed_shape(x: jax.ShapeDtypeStruct, columns: int) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(functools.partial(packed, columns=columns), x)


def compiled(function: jax.stages.Wrapped, arguments: Any, device: jax.Device | None) -> jax.stages.Compiled:
    """Compile for arguments of these shapes, on the default device or one that need not be present."""
    if device is not None:
        place = SingleDeviceSharding(device)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arguments
        )
    return function.lower(*arguments).compile()


def stage_parts(
    model: RANN, x: jax.ShapeDtypeStruct, lanes: int | None, device: jax.Device | None
) -> Iterator[Part]:
    """Yield the five stages; each takes the output shape of the one before it."""
    lanes = suited(model.clone(lanes=lanes), device).lanes
    before = columns_for(BASE_CHANNELS * model.width, x.shape[2], lanes)
    for number, time_stride in enumerate(temporal_strides(model.t_m)):
        channels = BASE_CHANNELS * model.width * 2**number
        plain = Stage(channels, time_stride, number == 0, model.blocks_per_stage, model.dtype)
        variables = jax.eval_shape(plain.init, jax.random.key(0), x)
        params, statistics = variables["params"], variables["batch_stats"]
        forward = functools.partial(_forward, plain, statistics)
        y = jax.eval_shape(forward, params, x)
        macs = count_macs(jax.make_jaxpr(forward)(params, x).jaxpr)

        after = columns_for(channels, y.shape[2], lanes)
        forward = functools.partial(_forward, plain.clone(columns=(before, after)), statistics)
        arguments = (params, _packed_shape(x, before), _packed_shape(y, after))
        options = xla_options(device)
        there_and_back = jax.jit(functools.partial(_there_and_back, forward), compiler_options=options)
        program = compiled(there_and_back, arguments, device)
        yield Part(f"stage {number}", y.shape[1:], 6.0 * macs, program, arguments)
        x, before = y, after


def whole_step(
    workload: Workload, experiment: Experiment, lanes: int | None, device: jax.Device | None
) -> Part:
    """Return the whole training step from feature images. `lanes` None means those of the device."""
    flops = workload.flops(experiment)
    experiment = dataclasses.replace(experiment, model=experiment.model.clone(lanes=lanes))
    arguments = ours.argument_shapes(workload, experiment)
    program = compiled(ours.function(workload, experiment, device=device), arguments, device)
    classes = experiment.config.num_classes
    return Part("whole step", (classes,), flops, program, arguments, carries=True)


def row(part: Part, taken: float | None, flops: float | None, bandwidth: float | None) -> dict[str, Any]:
    """Return a part's row of the table, without times if none were taken."""
    figures: dict[str, Any] = {
        "part": part.name,
        "output": " x ".join(map(str, part.output)),
        "gflop": part.flops / 1e9,
        "gbyte": part.bytes_accessed / 1e9,
    }
    if cycles := expected_cycles(part.compiled):
        figures |= {"temporary mbyte": part.temporaries / 1e6, "expected Mcycles": cycles / 1e6}
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
    parser = Parser("benchmarks.stages", __doc__)
    parser.add_argument("--network", default="rann-4x4-2", help="a RANN (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dry-run", action="store_true", help="compile and count only")
    parser.add_argument("--topology", help="count for one chip of this TPU slice, as in v5e:2x2")
    parser.add_argument("--lanes", type=int, help="channels to fill by packing (default: the device's)")
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)

    device = None
    if options.topology:
        jax.config.update("jax_platforms", "cpu")
        device = tpu_devices(options.topology)[0]
    workload = Workload(TRAINING, options.network, FEATURES, options.batch, options.dtype)
    experiment = workload.experiment()
    dtype = jnp.dtype(options.dtype)
    report = machine.about("benchmarks.stages", arguments, PACKAGES, device and device.device_kind)
    flops = bandwidth = None
    timed = not options.dry_run and device is None
    if timed:
        flops, bandwidth = machine.matmul_flops(dtype), machine.bandwidth()
        print(f"large matrix product: {flops / 1e12:.3f} TFLOP/s; addition: {bandwidth / 1e9:.1f} GB/s")
    rows = []
    first = jax.ShapeDtypeStruct((options.batch, *experiment.image_shape, 1), dtype)
    stages = stage_parts(experiment.model, first, options.lanes, device)
    for part in [*stages, whole_step(workload, experiment, options.lanes, device)]:
        taken = part.median_seconds(options.repeats) if timed else None
        rows.append(row(part, taken, flops, bandwidth))
    heads = list(rows[0])
    print(machine.markdown(heads, [[shown(line[head], head) for head in heads] for line in rows]))
    if options.json:
        report |= {"matmul_flops": flops, "bandwidth": bandwidth, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

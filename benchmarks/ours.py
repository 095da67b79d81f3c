"""The JAX side of a paired benchmark: compile a workload as training does, and time it.

As a program, it measures one workload, given as JSON, in a process of its own, and prints JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from benchmarks import machine
from benchmarks.workload import TRAINING, WAVEFORM, Workload, nbytes
from rann_jax import distributed, steps
from rann_jax.command_line.program import out_of_memory
from rann_jax.compile import memory_bytes
from rann_jax.devices.compiler import suited, xla_options
from rann_jax.experiment import Experiment


def unchanged(images: jax.Array) -> jax.Array:
    """Return images as they are: the front end for inputs that are features already."""
    return images


def function(
    workload: Workload,
    experiment: Experiment,
    replicated: Sharding | None = None,
    device: jax.Device | None = None,
) -> jax.stages.Wrapped:
    """Return the jitted step: a training step, or an inference.

    A training step maps (state, batch) to (state, metrics) and reuses the state's memory. Inference maps
    (variables, audio) to probabilities (B, C). `replicated` is the sharding of a training step's results, so
    that the next step can take them. Compiler options and the form of the network are those for `device`, by
    default JAX's default.
    """
    options, model = xla_options(device), suited(experiment.model, device)
    config = experiment.config
    from_sound = workload.source == WAVEFORM
    front_end = experiment.front_end if from_sound else unchanged
    if workload.kind != TRAINING:
        step = steps.make_eval_step(model, front_end, task=config.task)
        return jax.jit(step, compiler_options=options)
    step = steps.make_train_step(
        model,
        front_end,
        experiment.tx,
        task=config.task,
        ema_decay=config.ema_decay,
        augment=experiment.augment if from_sound else steps.NO_AUGMENTATION,
    )
    return jax.jit(step, donate_argnums=0, out_shardings=replicated, compiler_options=options)


def argument_shapes(workload: Workload, experiment: Experiment) -> tuple[Any, Any]:
    """Return the shapes of the arguments of `function`; nothing is allocated."""
    state = experiment.shapes
    batch = workload.batch_shapes(experiment)
    return (state, batch) if workload.kind == TRAINING else (state.ema_variables, batch["audio"])


def one_processor() -> Mesh:
    """Return a mesh of what PyTorch's side has: one accelerator, or all devices that JAX makes of the CPU."""
    return distributed.data_mesh(devices=jax.devices()[: 1 if machine.on_accelerator() else None])


def compiled(workload: Workload, experiment: Experiment, mesh: Mesh) -> jax.stages.Compiled:
    """Compile the program for the devices of the mesh, which share each batch."""
    replicated = distributed.replicated(mesh)
    held, batch = argument_shapes(workload, experiment)
    placed = on(replicated, held), on(distributed.split_batch(mesh), batch)
    return function(workload, experiment, replicated).lower(*placed).compile()


def on(sharding: Sharding, shapes: Any) -> Any:
    """Return shapes and types of a tree of arrays, all with this sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def timed(
    workload: Workload, experiment: Experiment, mesh: Mesh, call: jax.stages.Compiled
) -> dict[str, list[float]]:
    """Return the seconds of steps on data on the devices and of steps fed from the host, taken in turns.

    Steps are fed as in a training loop: while one runs, the next batch is transferred, one transfer per step.
    """
    training = workload.kind == TRAINING
    state = experiment.create(shardings=distributed.replicated(mesh))
    holder = [state if training else state.ema_variables]
    host: list[Any] = [workload.host_batch(experiment, seed) for seed in (0, 1)]
    if not training:
        host = [batch["audio"] for batch in host]
    split = distributed.split_batch(mesh)
    resident = jax.device_put(host[0], split)
    batch = [resident]

    def run(following: Callable[[int], Any]) -> None:
        for number in range(workload.steps):
            result = call(holder[0], batch[0])
            if training:
                holder[0], result = result
            batch[0] = following(number)
        jax.block_until_ready((holder[0], result, batch[0]))

    taken = machine.times(
        {
            "seconds": lambda: run(lambda _: resident),
            "fed_seconds": lambda: run(lambda number: jax.device_put(host[number % 2], split)),
        },
        workload.repeats,
    )
    return {name: [block / workload.steps for block in blocks] for name, blocks in taken.items()}


def measure(workload: Workload) -> dict[str, Any]:
    """Return times, memory, bytes moved and compile seconds (with tracing), or that it does not fit."""
    experiment, mesh = workload.experiment(), one_processor()
    try:
        begin = time.perf_counter()
        call = compiled(workload, experiment, mesh)
        compile_seconds = time.perf_counter() - begin
        taken: dict[str, Any] = {**timed(workload, experiment, mesh, call)}
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        return {"failed": "out of memory"}
    cost: Any = call.cost_analysis()
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        **taken,
        "compile_seconds": compile_seconds,
        "memory_bytes": memory_bytes(call) * mesh.size if peak is None else peak,
        "bytes_accessed": float(cost["bytes accessed"]) * mesh.size,
        "flops": workload.flops(experiment),
    }


def dry_run(workload: Workload) -> dict[str, Any]:
    """Trace and lower the program for CUDA without a device or allocations; return its size."""
    experiment = workload.experiment()
    shapes = argument_shapes(workload, experiment)
    function(workload, experiment).trace(*shapes).lower(lowering_platforms=("cuda",))
    params = experiment.shapes.params
    return {
        "parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        "flops": workload.flops(experiment),
        "argument_bytes": nbytes(shapes),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Workload(**json.loads(sys.argv[1])))))

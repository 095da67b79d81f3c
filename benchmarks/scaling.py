"""Time a step shared by simulated CPU devices, with constant work per device.

    python -m benchmarks.scaling --json benchmarks/results/scaling_cpu.json

The devices share the cores of this machine, so N devices do N times the work of one and ideally take N times
its CPU seconds. `efficiency` is N * (CPU seconds of a step on 1 device) / (CPU seconds on N); other programs
disturb it less than wall-clock time. Each device count runs in its own process. `host` is the main thread's
share of the CPU seconds: placing the batch and dispatching. The time until the first step is done starts
after the imports; it is measured once with an empty compilation cache and once with the cache of that run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from configs.quickstart import get_config
from rann_jax import distributed
from rann_jax.command_line.parser import Parser
from rann_jax.devices import compilation_cache
from rann_jax.experiment import build
from rann_jax.training.compiled import sharded_step

MODEL = "rann-1x4-1"


def measure(devices: int, batch_per_device: int, repeats: int) -> dict[str, Any]:
    """Return a step's median seconds with this many devices, the host's share, and the first step's time."""
    begin = time.perf_counter()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    compilation_cache.enable()
    config = get_config()
    config.model.name = MODEL
    config.batch_size = batch_per_device * devices
    experiment, mesh = build(config), distributed.data_mesh()
    state = experiment.create(shardings=experiment.shardings(mesh))
    step = sharded_step(experiment, mesh)
    rng = np.random.default_rng(0)
    audio = rng.integers(-(2**15), 2**15, (config.batch_size, experiment.crop_samples), dtype=np.int16)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, config.batch_size)]
    clocks = (time.perf_counter, time.process_time, time.thread_time)
    rows = []
    for repeat in range(repeats + 2):
        before = [clock() for clock in clocks]
        batch = distributed.place_batch({"audio": audio, "labels": labels}, mesh)
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        if repeat == 0:
            first = time.perf_counter() - begin
        if repeat >= 2:
            rows.append([clock() - start for clock, start in zip(clocks, before, strict=True)])
    wall, cpu, main_thread = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "devices": devices,
        "step_s": wall,
        "step_cpu_s": cpu,
        "host_share": main_thread / cpu,
        "first_step_s": first,
    }


def in_process(devices: int, options: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Run `measure` in a new process that keeps its compiled programs in `cache`."""
    command = [sys.executable, "-m", "benchmarks.scaling", "--only", str(devices)]
    command += ["--batch", str(options.batch), "--repeats", str(options.repeats)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(result.stdout)


def readable(row: dict[str, Any]) -> str:
    return (
        f"{row['devices']} devices: step {row['step_s']:.3f} s, {row['step_cpu_s']:.3f} CPU s, efficiency "
        f"{row['efficiency']:.2f}, host {row['host_share']:.1%}"
    )


def main() -> None:
    parser = Parser("benchmarks.scaling", __doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=4, help="clips per device")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", type=int, help="measure this many devices in this process, print JSON")
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.batch, options.repeats)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        cold = in_process(options.devices[0], options, cache)
        for devices in options.devices:
            row = in_process(devices, options, cache)
            base = rows[0] if rows else row
            work = devices / base["devices"]
            rows.append({**row, "efficiency": work * base["step_cpu_s"] / row["step_cpu_s"]})
            print(readable(rows[-1]), flush=True)
    start = {"cold_s": cold["first_step_s"], "warm_s": rows[0]["first_step_s"]}
    seconds = f"{start['cold_s']:.1f} s cold, {start['warm_s']:.1f} s warm"
    print(f"first step of {options.devices[0]} devices after {seconds}")
    if options.json:
        about = machine.about("benchmarks.scaling", None, ("jax", "jaxlib", "flax"))
        about["network"] = f"{MODEL}, quickstart's input, {options.batch} clips a device"
        options.json.write_text(json.dumps({**about, "start": start, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

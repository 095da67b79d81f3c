"""Compile the training step for absent devices: print memory, FLOPs, collectives, and whether it fits.

  python -m rann_jax.compile --config configs/audioset.py --topology v5e:4x4

compiles for a TPU v5e slice on any Linux machine (extra `tpu`), in a few minutes. With --cpu-devices 8 it
compiles for that many simulated CPU devices instead. Config overrides work as in rann_jax.main:
--config.batch_size=256 --config.model.remat=True. The exit code is 1 if the step does not fit.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from rann_jax import distributed
from rann_jax.command_line.config_file import load_config_file
from rann_jax.command_line.parser import Parser
from rann_jax.command_line.program import guarded, out_of_memory
from rann_jax.devices.collectives import traffic
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from rann_jax.training.compiled import compiled_step

MB = 1e6


def tpu_devices(topology: str) -> Sequence[Any]:
    """Return the devices of a slice such as `v5e:4x4`; the slice itself need not be there.

    Raises:
      ConfigError: libtpu is not installed, or knows no such slice.
    """
    # Otherwise libtpu asks for cloud metadata and waits for an answer, even on a machine outside a cloud.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # jax passes on whatever its plugin raises
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"--topology {topology}: {reason[0]}: name a slice as in v5e:4x4, and install the extra `tpu`"
        ) from error


def memory_bytes(compiled: jax.stages.Compiled) -> int:
    """Return what a device holds during a step: arguments, results not aliased to them, temporaries, code."""
    stats: Any = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )


def expected_cycles(compiled: jax.stages.Compiled) -> int:
    """Return the cycles that the TPU compiler expects a program to take, or 0 for other devices.

    It writes its estimate beside each operation. Operations in the bodies of loops are counted once.
    """
    return sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', str(compiled.as_text()))))


def describe(compiled: jax.stages.Compiled, seconds: float) -> list[str]:
    """Return the lines to print about a compiled step."""
    stats: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    lines = [
        f"compiled in {seconds:.0f} s",
        f"memory per device: {memory_bytes(compiled) / MB:,.0f} MB, of which arguments "
        f"{stats.argument_size_in_bytes / MB:,.0f}, temporaries {stats.temp_size_in_bytes / MB:,.0f}",
        f"FLOPs per device and step: {cost['flops']:.3e}",
    ]
    if cycles := expected_cycles(compiled):
        lines.append(f"cycles per step, as the compiler expects: {cycles:.3e}")
    for kind, sent in sorted(traffic(str(compiled.as_text())).items()):
        lines.append(f"{kind}: {sent.count}, {sent.bytes / MB:,.2f} MB per device and step")
    return lines


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Do what the command line asks and return the exit code.

    Raises:
      ConfigError: the user can fix it.
    """
    jax.config.update("jax_platforms", "cpu")
    if options.cpu_devices is not None:
        if options.cpu_devices < 1:
            raise ConfigError(f"--cpu-devices={options.cpu_devices}: it must be at least 1")
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    config = load_config_file(options.config, overrides)
    experiment = build(config)
    devices = tpu_devices(options.topology) if options.topology else jax.devices()
    mesh = distributed.data_mesh(config.sharding.model, devices)
    shape = " x ".join(f"{name}={size}" for name, size in mesh.shape.items())
    kind = devices[0].device_kind
    print(f"{config.model.name}, batch {config.batch_size}, on {len(devices)} x {kind} ({shape})", flush=True)
    distributed.check_parts(config, mesh)
    begin = time.monotonic()
    try:
        compiled = compiled_step(experiment, mesh)
    except jax.errors.JaxRuntimeError as error:
        if not (lack := out_of_memory(error)):
            raise
        print(f"does not fit: {lack}")
        return 1
    print("\n".join(describe(compiled, time.monotonic() - begin)))
    # The TPU compiler knows the device memory and refuses programs that exceed it.
    print("fits" if options.topology else "whether it fits depends on the memory that all CPU devices share")
    return 0


def _parser() -> Parser:
    parser = Parser("rann_jax.compile", __doc__)
    parser.add_argument("--config", required=True, help="configs/NAME.py[:presets]")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--topology", help="a TPU slice, such as v5e:4x4 or v6e:16x16")
    target.add_argument("--cpu-devices", type=int, help="number of simulated CPU devices")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return 0, 1 if the step does not fit, 2 if the user can fix the error."""
    options, overrides = _parser().parse_known_args(arguments)
    return guarded(lambda: run(options, overrides))


if __name__ == "__main__":
    sys.exit(main())

"""Record what a measurement ran on (device, versions, load, measured ceilings), and take medians.

As a program, it prints device and ceilings as JSON for callers that must not hold the device themselves.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from rann_jax.environment import device_kind

# Environment variables that change the speed of the process.
SETTINGS = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS", "JAX_NUM_CPU_DEVICES")


def on_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def device_name() -> str:
    return device_kind() if on_accelerator() else f"{device_kind()}, {os.cpu_count()} cores"


def versions(packages: Sequence[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def about(
    module: str, arguments: Sequence[str] | None, packages: Sequence[str], device: str | None = None
) -> dict[str, Any]:
    """Return what is recorded beside every figure: command, settings, device, date, versions and load.

    The device is this process's by default; pass `device` if other processes made the measurements.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["python", "-m", module, *given]),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "device": device or device_name(),
        "date": datetime.date.today().isoformat(),
        "versions": versions(packages),
        "load": round(os.getloadavg()[0], 2),
    }


def seconds(call: Callable[[], Any]) -> float:
    """Return the time of one call, which must wait for its own result."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def times(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call, taken in turns after a first round that compiles or warms up."""
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(repeats + 1):
        for name, call in calls.items():
            taken = seconds(call)
            if round_:
                measured[name].append(taken)
    return measured


def medians(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median of `times` for each call."""
    return {name: statistics.median(measured) for name, measured in times(calls, repeats).items()}


def bandwidth() -> float:
    """Return the bytes per second of a plain addition, of a GiB on accelerators and a quarter on a CPU."""
    x = jnp.zeros(2**28 if on_accelerator() else 2**26, jnp.float32)
    # Reuse the same memory: on a CPU, new pages would cost as much as the addition.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    holder = [x]

    def once() -> None:
        holder[0] = jax.block_until_ready(add(holder[0]))

    return 2 * x.nbytes / medians({"add": once}, 10)["add"]


def matmul_flops(dtype: jax.typing.DTypeLike) -> float:
    """Return the FLOP/s of a large square matrix product, the ceiling for arithmetic."""
    size = 8192 if on_accelerator() else 2048
    a = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a: a @ a)
    taken = medians({"matmul": lambda: jax.block_until_ready(multiply(a))}, 10)["matmul"]
    return 2 * size**3 / taken


def ceilings(dtype: str | None = None) -> dict[str, Any]:
    """Return the device and its measured ceilings; `dtype` defaults to bfloat16 on accelerators."""
    dtype = dtype or ("bfloat16" if on_accelerator() else "float32")
    return {
        "platform": jax.default_backend(),
        "device": device_name(),
        "dtype": dtype,
        "matmul_flops": matmul_flops(jnp.dtype(dtype)),
        "bandwidth": bandwidth(),
    }


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up in the source too."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def joined(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([joined(heads), joined(["-" * w for w in widths]), *map(joined, rows)])


if __name__ == "__main__":
    print(json.dumps(ceilings(*sys.argv[1:])))

"""Record what a measurement ran on (device, versions, load, measured ceilings), and take medians.

The load averages count the measurement itself; `OtherPrograms` tells how idle the machine was otherwise.

As a program, it prints device and ceilings as JSON for callers that must not hold the device themselves.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rann_jax.saved.environment import device_kind

# Environment variables that change the speed of the process.
SETTINGS = ("GLIBC_TUNABLES", "XLA_FLAGS", "OMP_NUM_THREADS", "JAX_NUM_CPU_DEVICES")

# On an accelerator, calls that together take so long, at most so many, are queued and waited for once. The
# host learns about 0.3 ms late that a call has finished, a fifth to a third of a ceiling's single call.
TURN_SECONDS, QUEUED = 0.1, 100

STAT = Path("/proc/stat")  # the first line has the clock ticks of all cores by what they did, on Linux


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
        "load": load(),
    }


def load() -> float:
    """Return the machine's load average over the last minute."""
    return round(os.getloadavg()[0], 2)


class OtherPrograms:
    """How much of the machine programs other than this one and its children use, counted from now on."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds = self._seconds()

    def _seconds(self) -> float | None:
        """Return the processor seconds of others since the machine started, if the kernel counts them."""
        if not STAT.exists():
            return None
        # The last is what other virtual machines took.
        user, nice, system, _, _, irq, softirq, steal = map(int, STAT.read_text().split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return busy - sum(usage.ru_utime + usage.ru_stime for usage in used)

    def cores(self) -> float | None:
        """Return how many cores they have kept busy on average, children counted once they have ended."""
        now = self._seconds()
        if now is None or self.seconds is None:
            return None
        return round(max(0.0, (now - self.seconds) / (time.perf_counter() - self.start)), 2)


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


def turn(call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> int:
    """Return how many calls together take so many seconds, at most `QUEUED`; the call must be compiled."""
    start = time.perf_counter()
    wait(call())
    once = time.perf_counter() - start
    return max(1, min(QUEUED, round(seconds / once)))


def sustained(call: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of a call that does not wait for its result.

    On an accelerator, each reading is of as many calls as take `TURN_SECONDS`, waited for once. On a CPU it
    is of one call: those measured here are long, and several at a time could share the cores.
    """
    jax.block_until_ready(call())  # compiles
    count = turn(call, jax.block_until_ready, TURN_SECONDS) if on_accelerator() else 1

    def queue() -> None:
        out = None
        for _ in range(count):
            out = call()
        jax.block_until_ready(out)

    return medians({"": queue}, repeats)[""] / count


def bandwidth() -> float:
    """Return the bytes per second of a plain addition, of a GiB on accelerators and a quarter on a CPU."""
    holder = [jax.random.normal(jax.random.key(0), 2**28 if on_accelerator() else 2**26)]
    # Reuse the same memory: on a CPU, new pages would cost as much as the addition.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def once() -> jax.Array:
        holder[0] = add(holder[0])
        return holder[0]

    return 2 * holder[0].nbytes / sustained(once, 10)


def matmul_flops(dtype: jax.typing.DTypeLike) -> float:
    """Return the FLOP/s of a large square matrix product, the ceiling for arithmetic.

    The operands are random, as a network's are: with constants, a GPU needs less power and so clocks higher.
    """
    size = 8192 if on_accelerator() else 2048
    a, b = (jax.random.normal(key, (size, size), dtype) for key in jax.random.split(jax.random.key(0)))
    multiply = jax.jit(jnp.matmul)
    return 2 * size**3 / sustained(lambda: multiply(a, b), 10)


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

"""Time JAX and PyTorch in turns on the same device: what `train_step` and `inference` have in common.

Every measurement is a process of its own, so each side has all of the memory, peaks are separate, and a
workload that does not fit ends a row but not the run. Each round times ours, plain PyTorch, and PyTorch with
its forward and backward pass through torch.compile. In the second round, ours finds its program in the
compilation cache that the first round has filled.

With --huge-pages, all processes run with a setting of glibc's allocator that spares both sides most page
faults; without it, they run as users' processes do. Each row of the JSON has the load before it and how many
cores other programs kept busy meanwhile.
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import machine
from benchmarks.workload import FEATURES, WAVEFORM, Workload, network_name
from rann_jax.command_line.parser import Parser

PACKAGES = ("jax", "jaxlib", "flax", "torch", "torchlibrosa", "panns-inference")

CPU: dict[str, Any] = {
    "networks": ["rann-4x4-1", "rann-4x4-2", "cnn14"],
    "batch": [4, 32],
    "dtype": "float32",
    "seconds": 2.0,
    "steps": 1,
    "repeats": 3,
}
ACCELERATOR: dict[str, Any] = {
    "networks": ["rann-8x4-6", "rann-4x4-6", "rann-8x4-4", "cnn14"],
    "batch": [32, 64, 128, 256],
    "dtype": "bfloat16",
    "seconds": 10.0,
    "steps": 10,
    "repeats": 10,
}
# Tell glibc to keep all memory that is freed, in huge pages. Otherwise it returns arrays above 32 MB to the
# system, and they come back page by page, at every step.
HUGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=1073741824"
)
KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
COMPILED = "compiled"
MODES = ("none", "default", "reduce-overhead", "max-autotune")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its head, the key of its figure, and the format."""

    head: str
    key: str
    written: str = "{}"
    unit: float | None = None

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return the formatted figure, the reason why it is missing, or a dash."""
        value = row.get(self.key)
        if value is None:
            return "-"
        if isinstance(value, str):
            return value
        return self.written.format(value if self.unit is None else value / self.unit)


CASE = [Column("network", "network"), Column("input", "source"), Column("batch", "batch")]
SPEED = [
    *CASE,
    Column("clips/s", "clips_per_second", "{:.1f}"),
    Column("JAX ms", "jax_seconds", "{:.1f}", 1e-3),
    Column("PyTorch ms", "torch_seconds", "{:.1f}", 1e-3),
    Column("ratio", "torch_ratio", "{:.2f}"),
    Column("torch.compile ms", "compiled_seconds", "{:.1f}", 1e-3),
    Column("ratio", "compiled_ratio", "{:.2f}"),
    Column("JAX GB", "jax_memory_bytes", "{:.2f}", 1e9),
    Column("PyTorch GB", "torch_memory_bytes", "{:.2f}", 1e9),
    Column("torch.compile GB", "compiled_memory_bytes", "{:.2f}", 1e9),
]
COST = [
    *CASE,
    Column("compiled s", "compile_seconds", "{:.1f}"),
    Column("from cache s", "cached_compile_seconds", "{:.1f}"),
    Column("TFLOP/s", "flops_per_second", "{:.3f}", 1e12),
    Column("of matmul", "of_matmul", "{:.0%}"),
    Column("GB moved", "bytes_accessed", "{:.2f}", 1e9),
    Column("of bandwidth", "of_bandwidth", "{:.0%}"),
    Column("waits for the host", "idle", "{:.1%}"),
]
DRY = [
    *CASE,
    Column("parameters", "parameters", "{:,.0f}"),
    Column("TFLOP", "flops", "{:.3f}", 1e12),
    Column("arguments GB", "argument_bytes", "{:.2f}", 1e9),
]


def parser(program: str, doc: str | None) -> Parser:
    """Return the parser of both programs; an option of None gets the device's default."""
    made = Parser(program, doc)
    made.add_argument("--networks", nargs="+", type=network_name, help="rann-... and cnn14")
    made.add_argument("--sources", nargs="+", choices=(WAVEFORM, FEATURES), default=[WAVEFORM, FEATURES])
    made.add_argument("--batch", nargs="+", type=int, help="clips per step")
    made.add_argument("--dtype", choices=("float32", "bfloat16"))
    made.add_argument("--seconds", type=float, help="length of CNN14's clips; a RANN's name sets its own")
    made.add_argument("--steps", type=int, help="steps between two readings of the clock")
    made.add_argument("--repeats", type=int, help="readings of the clock in a round")
    made.add_argument("--rounds", type=int, default=2, help="rounds of all sides (default: %(default)s)")
    made.add_argument(
        "--torch-compile",
        choices=MODES,
        default="default",
        help="mode of torch.compile (on a CPU it needs a C++ compiler), or none (default: %(default)s)",
    )
    made.add_argument(
        "--huge-pages",
        action="store_true",
        help="run both sides with huge pages and with memory that is kept from step to step, by"
        " GLIBC_TUNABLES (Linux with glibc 2.35); it changes PyTorch's times the most (default: without, as"
        " users run)",
    )
    made.add_argument("--dry-run", action="store_true", help="trace and lower for CUDA, time nothing")
    made.add_argument("--json", type=Path, help="also write all figures here")
    return made


def with_defaults(options: argparse.Namespace, platform: str) -> argparse.Namespace:
    """Fill options that were not given with this platform's defaults."""
    for name, value in (CPU if platform == "cpu" else ACCELERATOR).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def huge_pages() -> dict[str, str]:
    """Return the environment that gives a process huge pages.

    Raises:
      ValueError: this system ignores that setting; the message says why.
    """
    library, version = platform.libc_ver()
    if library != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        raise ValueError(f"needs glibc 2.35, this Python has {f'{library} {version}'.strip() or 'none'}")
    if not KERNEL_SETTING.exists() or "[never]" in KERNEL_SETTING.read_text():
        raise ValueError(f"this kernel gives none: write madvise to {KERNEL_SETTING}")
    given = os.environ.get("GLIBC_TUNABLES")
    return {"GLIBC_TUNABLES": f"{given}:{HUGE_PAGES}" if given else HUGE_PAGES}


def workloads(kind: str, options: argparse.Namespace) -> Iterator[Workload]:
    """Yield a workload for every network, input and batch size."""
    settings = {name: getattr(options, name) for name in ("dtype", "seconds", "steps", "repeats")}
    for network in options.networks:
        for source in options.sources:
            for batch in options.batch:
                yield Workload(kind, network, source, batch, **settings)


def in_process(module: str, *arguments: str, settings: Mapping[str, str]) -> dict[str, Any]:
    """Run a program and return the JSON of its last line, or "out of memory" if the system killed it.

    `settings` are environment variables of the process, beside this one's.

    Raises:
      SystemExit: it failed otherwise; the message has the end of its stderr.
    """
    # Each process is alone on the device; by default JAX would leave a quarter of the memory unused.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", **settings}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == -9:
        return {"failed": "out of memory"}
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def sides(
    platform: str, cache: str, mode: str, settings: Mapping[str, str]
) -> dict[str, Callable[[Workload], dict[str, Any]]]:
    """Return how each side measures a workload: JAX and, except on TPUs, PyTorch without and with `mode`.

    Ours keeps compiled programs in the folder `cache`; `settings` are environment variables of both sides.
    """
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def ours(workload: Workload) -> dict[str, Any]:
        return in_process("benchmarks.ours", as_json(workload), settings={**kept, **settings})

    def theirs(workload: Workload, mode: str) -> dict[str, Any]:
        device = "cpu" if platform == "cpu" else "cuda"
        workload = dataclasses.replace(workload, torch_compile=mode)
        return in_process("benchmarks.twin", device, as_json(workload), settings=settings)

    modes = {"torch": "none"} if mode == "none" else {"torch": "none", COMPILED: mode}
    twins = {side: functools.partial(theirs, mode=mode) for side, mode in modes.items()}
    return {"jax": ours} if platform == "tpu" else {"jax": ours, **twins}


def as_json(workload: Workload) -> str:
    return json.dumps(dataclasses.asdict(workload))


def rounds(
    workload: Workload, measures: Mapping[str, Callable[[Workload], dict[str, Any]]], count: int
) -> dict[str, list[dict[str, Any]]]:
    """Return each side's measurements, round by round; a side that failed is not run again."""
    seen: dict[str, list[dict[str, Any]]] = {side: [] for side in measures}
    for _ in range(count):
        for side, measure in measures.items():
            if not any("failed" in run for run in seen[side]):
                seen[side].append(measure(workload))
    return seen


def row(
    workload: Workload, seen: Mapping[str, Sequence[Mapping[str, Any]]], ceilings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all figures of a workload; for a side that failed, the reason."""
    figures: dict[str, Any] = {
        "network": workload.network,
        "source": workload.source,
        "batch": workload.batch,
    }
    seconds: dict[str, float] = {}
    for side, runs in seen.items():
        if failures := [run["failed"] for run in runs if "failed" in run]:
            figures[f"{side}_seconds"] = failures[0]
            continue
        figures[f"{side}_seconds"] = seconds[side] = median(runs, "seconds")
        figures[f"{side}_memory_bytes"] = runs[-1]["memory_bytes"]
    if mine := seconds.pop("jax", None):
        figures["clips_per_second"] = workload.batch / mine
        figures |= cost(seen["jax"], mine, ceilings)
        figures |= {f"{side}_ratio": theirs / mine for side, theirs in seconds.items()}
    return figures


def cost(
    runs: Sequence[Mapping[str, Any]], seconds: float, ceilings: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return what our step costs, absolutely and as shares of the machine's ceilings."""
    first = runs[0]
    return {
        "compile_seconds": first["compile_seconds"],
        "cached_compile_seconds": runs[1]["compile_seconds"] if len(runs) > 1 else None,
        "flops": first["flops"],
        "flops_per_second": first["flops"] / seconds,
        "of_matmul": first["flops"] / seconds / ceilings["matmul_flops"],
        "bytes_accessed": first["bytes_accessed"],
        "of_bandwidth": first["bytes_accessed"] / seconds / ceilings["bandwidth"],
        "idle": max(0.0, 1 - seconds / median(runs, "fed_seconds")),
    }


def median(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.median(value for run in runs for value in run[key])


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    heads = [column.head for column in columns]
    return machine.markdown(heads, [[column.cell(row) for column in columns] for row in rows])


def dry_row(workload: Workload) -> dict[str, Any]:
    """Trace a workload on both sides and return its sizes.

    Raises:
      SystemExit: the sides have different numbers of parameters.
    """
    from benchmarks import ours, twin

    mine, theirs = ours.dry_run(workload), twin.dry_run(workload)
    if mine["parameters"] != theirs["parameters"]:
        raise SystemExit(
            f"{workload.network}: {mine['parameters']} parameters, {theirs['parameters']} in PyTorch"
        )
    return {**dataclasses.asdict(workload), **mine}


def main(kind: str, module: str, doc: str | None, arguments: Sequence[str] | None) -> None:
    """Measure every workload that the command line names, and print both tables."""
    made = parser(module, doc)
    options = made.parse_args(arguments)
    if options.dry_run:
        options = with_defaults(options, jax.default_backend())
        print(table(DRY, [dry_row(workload) for workload in workloads(kind, options)]))
        return
    try:
        settings = huge_pages() if options.huge_pages else {}
    except ValueError as error:
        made.error(f"argument --huge-pages: {error}")
    dtype = [options.dtype] if options.dtype else []
    ceilings = in_process("benchmarks.machine", *dtype, settings=settings)
    options = with_defaults(options, ceilings["platform"])
    about = machine.about(module, arguments, PACKAGES, device=ceilings["device"])
    about["settings"] |= settings
    print(
        f"{ceilings['device']}: large matrix product, {options.dtype}, {ceilings['matmul_flops'] / 1e12:.3f} "
        f"TFLOP/s; addition {ceilings['bandwidth'] / 1e9:.1f} GB/s"
    )
    rows = []
    for workload in workloads(kind, options):
        load, others = machine.load(), machine.OtherPrograms()
        # Each row has its own cache, so that its first round compiles even what earlier rows compiled.
        with tempfile.TemporaryDirectory() as cache:
            measures = sides(ceilings["platform"], cache, options.torch_compile, settings)
            seen = rounds(workload, measures, options.rounds)
        rows.append({**row(workload, seen, ceilings), "load": load, "other_cores": others.cores()})
        print(table(SPEED, rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        if options.json:
            report = {**about, "ceilings": ceilings, "rows": rows}
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(SPEED, rows)}\n\n{table(COST, rows)}")

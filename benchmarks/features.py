"""Time every feature and measure its error, beside other libraries that compute it.

    JAX_NUM_CPU_DEVICES=4 python -m benchmarks.features --json benchmarks/results/features_cpu.json

The sounds are synthesised: 8 seconds at 44.1 kHz, seeded. Ours and librosax run on all of JAX's devices,
which share a batch. XLA runs a transform, or the body of a loop, on one thread of a CPU, so use one or two
devices per core (the command above is for two cores); with more devices the parts of a result are smaller,
and glibc keeps memory of up to 32 MB for the next call. PyTorch's peers run on a GPU if there is one, the
others on the CPU.
All contenders of a line take turns, round after round, and medians are reported. On a GPU, a turn is as many
calls as take about 20 ms, waited for once, as in training or in a loop over recordings: the delay until the
host learns that a call has finished is not of interest.
The error is the maximum absolute difference divided by the maximum absolute value of the reference (librosa,
spafe or PyWavelets, clip by clip). Complex references are compared by magnitude if a peer gives magnitudes.
A dash marks a peer that lacks the feature or is not installed, "shape" one whose result has another shape.
With --json OUT.json, the tables are also written to OUT.md.
"""

import argparse
import functools
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine
from benchmarks.feature_cases import CASES, SR, Case, shared
from rann_jax.command_line.parser import Parser

SECONDS = 8
# A contender that has taken this long is not called again in its line. If its first call alone took longer,
# that call counts.
CONTENDER_SECONDS = 3
TURN_SECONDS = 0.02  # what the calls of a GPU's turn take together
REFERENCES = ("librosa", "spafe", "pywt")
# The others compute on JAX's device or on PyTorch's.
OTHERS = ("torch", "torchaudio", "torchlibrosa", "nnAudio", "librosax")
LIBRARIES = [
    "jax",
    "numpy",
    "scipy",
    "librosa",
    "soxr",
    "spafe",
    "PyWavelets",
    "torch",
    "torchaudio",
    "torchlibrosa",
    "nnAudio",
    "librosax",
]


@functools.cache
def synthesise(batch: int, seed: int = 0) -> np.ndarray:
    """Return `(batch, N)` float32: decaying notes of five partials on a beat, over quiet noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(SECONDS * SR) / SR
    sounds = []
    for _ in range(batch):
        y = rng.normal(0, 0.01, len(t))
        beat = rng.uniform(0.2, 0.5)
        for onset in np.arange(0.05, SECONDS, beat):
            after = t[t >= onset] - onset
            pitch = 55 * 2 ** (rng.integers(0, 48) / 12)
            note = sum(np.sin(2 * np.pi * k * pitch * after) / k for k in range(1, 6))
            y[t >= onset] += 0.2 * note * np.exp(-6 * after)
        sounds.append(y / np.max(np.abs(y)))
    return np.stack(sounds).astype(np.float32)


def to_numpy(out: Any) -> np.ndarray:
    """Return any contender's result in the reference's layout `(B, ..., F, T)`."""
    if isinstance(out, tuple | list):  # torchlibrosa: real and imaginary parts
        return to_numpy(out[0]) + 1j * to_numpy(out[1])
    if hasattr(out, "cpu"):
        out = out.cpu().numpy()
        if out.ndim == 4 and out.shape[1] == 1:  # torchlibrosa: (B, 1, T, F)
            return np.swapaxes(out[:, 0], -1, -2)
        if out.ndim == 4 and out.shape[-1] == 2:  # nnAudio: real and imaginary parts
            return out[..., 0] + 1j * out[..., 1]
    return np.asarray(out)


def wait(out: Any) -> Any:
    """Wait until the device has finished `out`, and return it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.is_tensor(out) and out.is_cuda:
        torch.cuda.synchronize()
    return jax.block_until_ready(out)


def relative_error(out: Any, reference: np.ndarray) -> float | None:
    """Return the maximum error over the maximum of the reference; None if the shapes differ."""
    out = to_numpy(out)
    if out.shape != reference.shape:
        return None
    if np.iscomplexobj(reference) and not np.iscomplexobj(out):
        reference = np.abs(reference)
    return float(np.max(np.abs(out - reference)) / np.max(np.abs(reference)))


def measure(
    case: Case, batch: int, repeats: int, peers: list[str], bandwidth: float | None
) -> dict[str, Any]:
    """Time all contenders of one line, interleaved, and return the line's figures."""
    sounds = case.prepare(synthesise(batch))
    reference = np.stack([case.reference(clip) for clip in sounds])
    y = shared(sounds)
    calls = {"ours": lambda: case.ours(y)}
    missing = {}
    for name in [name for name in case.peers if name in peers]:
        try:
            calls[name] = case.peers[name](sounds)
        except ImportError as error:
            missing[name] = str(error)
    times: dict[str, list[float]] = {name: [] for name in calls}
    queued = dict.fromkeys(calls, 1)
    contenders: dict[str, Any] = {}
    for name, call in list(calls.items()):
        start = time.perf_counter()
        try:
            out = wait(call())
        except Exception as error:  # a failing peer must not end the table
            if name == "ours":
                raise
            missing[name] = repr(error)
            del calls[name]
            continue
        first = time.perf_counter() - start
        contenders[name] = {"first_s": first, "error": relative_error(out, reference)}
        if first > CONTENDER_SECONDS and name != "ours":
            times[name].append(first)
        if bandwidth is not None and name not in REFERENCES:
            queued[name] = machine.turn(call, wait, TURN_SECONDS)
        if name == "ours":
            moved = sum(leaf.nbytes for leaf in jax.tree.leaves((y, out)))
    for _ in range(repeats):
        for name, call in calls.items():
            if sum(times[name]) < CONTENDER_SECONDS:
                out = None  # free the last result first, or this contender would wait for it
                start = time.perf_counter()
                for _ in range(queued[name]):
                    out = call()
                wait(out)
                times[name].append((time.perf_counter() - start) / queued[name])
    for name, measured in contenders.items():
        measured["median_s"] = statistics.median(times[name])
        measured["calls"] = len(times[name])
        measured["times_ours"] = measured["median_s"] / statistics.median(times["ours"])
    ours = contenders["ours"]
    ours["compile_s"] = max(0.0, ours["first_s"] - ours["median_s"])
    if bandwidth:
        ours["bandwidth_share"] = moved / ours["median_s"] / bandwidth
    return {"feature": case.name, "batch": batch, "contenders": contenders, "missing": missing}


def _milliseconds(seconds: float) -> str:
    """Return milliseconds with three digits, or with all digits before the point."""
    milliseconds = seconds * 1e3
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"


def _cell(line: dict[str, Any], name: str, with_name: bool = False) -> str:
    measured = line["contenders"].get(name)
    if measured is None:
        return "-"
    text = f"{_milliseconds(measured['median_s'])}, {measured['times_ours']:.2f}x"
    if with_name:
        return f"{name} {text}"
    error = measured["error"]
    return f"{text}, {'shape' if error is None else f'{error:.0e}'}"


def table(lines: list[dict[str, Any]], on_gpu: bool) -> str:
    """Return the lines as a Markdown table; a peer's ratio is its time over ours."""
    heads = ["feature", "batch", "ours", "error", "compile", "reference", *OTHERS]
    rows = []
    for line in lines:
        ours = line["contenders"]["ours"]
        reference = next((name for name in REFERENCES if name in line["contenders"]), "")
        row = [line["feature"], str(line["batch"]), _milliseconds(ours["median_s"])]
        row += ["shape" if ours["error"] is None else f"{ours['error']:.0e}"]
        row += [f"{ours['compile_s']:.1f} s", _cell(line, reference, with_name=True)]
        row += [_cell(line, name) for name in OTHERS]
        if on_gpu:
            row += [f"{ours['bandwidth_share']:.0%}"]
        rows.append(row)
    if on_gpu:
        heads.append("of bandwidth")
    return machine.markdown(heads, rows)


def error_table(lines: list[dict[str, Any]]) -> str:
    """Return a Markdown table of features by libraries: the largest error of each."""
    rows = []
    for feature in dict.fromkeys(line["feature"] for line in lines):
        contenders = [line["contenders"] for line in lines if line["feature"] == feature]
        reference = next((name for name in REFERENCES if name in contenders[0]), "definition")
        cells = []
        for name in ("ours", *OTHERS):
            errors = [line[name]["error"] for line in contenders if name in line]
            known = [error for error in errors if error is not None]
            cells.append(f"{max(known):.1e}" if known else "shape" if errors else "-")
        rows.append(" | ".join([f"| {feature}", reference, *cells]) + " |")
    heads = ["feature", "reference", "ours", *OTHERS]
    return "\n".join(["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |", *rows])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser("benchmarks.features", __doc__.splitlines()[0])
    names = [case.name for case in CASES]
    parser.add_argument("--features", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=11, help="rounds of calls per line")
    libraries = [*REFERENCES, *OTHERS]
    parser.add_argument(
        "--peers", nargs="*", choices=libraries, default=libraries, metavar="NAME", help="libraries to time"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write results here, and OUT.md")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, and write the results if asked to."""
    options = parse(arguments)
    warnings.simplefilter("ignore")
    on_gpu = jax.default_backend() == "gpu"
    bandwidth = machine.bandwidth() if on_gpu else None
    report: dict[str, Any] = {
        **machine.about("benchmarks.features", arguments, LIBRARIES),
        "bandwidth_bytes_per_s": bandwidth,
        "seconds": SECONDS,
        "sample_rate": SR,
        "lines": [],
    }
    for case in CASES:
        for batch in options.batch if case.name in options.features else []:
            load, others = machine.load(), machine.OtherPrograms()
            line = measure(case, batch, options.repeats, options.peers, bandwidth)
            report["lines"].append({**line, "load": load, "other_cores": others.cores()})
            report["load_after"] = machine.load()
            print(_summary(line), file=sys.stderr, flush=True)
            if options.json:  # after every line, so that an interruption loses nothing
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(report, indent=1) + "\n")
                options.json.with_suffix(".md").write_text(as_text(report, on_gpu) + "\n")
    print(as_text(report, on_gpu))


def _summary(line: dict[str, Any]) -> str:
    times = [f"{name} {_milliseconds(of['median_s'])}" for name, of in line["contenders"].items()]
    missing = [f"{name}: {reason}" for name, reason in line["missing"].items()]
    return f"{line['feature']}, batch {line['batch']}: {'; '.join([*times, *missing])}"


def as_text(report: dict[str, Any], on_gpu: bool) -> str:
    """Return the tables in Markdown, headed by command, device and versions."""
    settings = [f"{name}={value}" for name, value in report["settings"].items()]
    shown = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return "\n".join(
        [
            f"`{' '.join([*settings, report['command']])}`\n",
            f"{report['device']}, {report['date']}; load {report['load']} before,"
            f" {report['load_after']} after, the measurement's own included.\n",
            f"{shown}.\n",
            f"{SECONDS} s at {SR} Hz. Cells of others: median time, its ratio to ours (above 1: ours"
            " is faster), error against the reference.\n",
            table(report["lines"], on_gpu),
            "\nErrors alone, the greatest of each library's lines:\n",
            error_table(report["lines"]),
        ]
    )


if __name__ == "__main__":
    main()

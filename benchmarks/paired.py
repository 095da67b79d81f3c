"""Two programs on the same cores, in turns: medians, the table that is printed, the file that is kept."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import torch


def medians(ours: Callable, theirs: Callable, repeats: int) -> tuple[float, float]:
    """Median seconds of each, taken in turns."""
    times: tuple[list, list] = ([], [])
    for repeat in range(repeats + 1):
        for function, seen in zip((ours, theirs), times, strict=True):
            begin = time.perf_counter()
            function()
            if repeat:  # the first call compiles, or warms up
                seen.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


def cell(ours: Callable, theirs: Callable, repeats: int) -> dict[str, float]:
    """Both medians and their ratio; above 1 JAX is faster."""
    jax_s, torch_s = medians(ours, theirs, repeats)
    return {"jax_s": jax_s, "torch_s": torch_s, "ratio": torch_s / jax_s}


def parser(doc: str | None, batch: int, repeats: int) -> argparse.ArgumentParser:
    """What the programs have in common."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--batch", type=int, default=batch)
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--json", type=Path, help="also write the table here")
    return made


def report(rows: list[dict], command: str, path: Path | None) -> None:
    """Print a line for each measured cell of the rows, and keep them with command, device and versions."""
    for row in rows:
        for what in ("inference", "training"):
            if what in row:
                seen = row[what]
                print(
                    f"{row['network']:<12} batch {row['batch']:<3} {what:<9} jax {seen['jax_s']:.3f} s, "
                    f"torch {seen['torch_s']:.3f} s, ratio {seen['ratio']:.2f}"
                )
    if path:
        about = {
            "command": command,
            "device": f"{jax.devices()[0].device_kind}, {platform.machine()}",
            "threads": torch.get_num_threads(),
            "versions": {
                "jax": jax.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
        path.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")

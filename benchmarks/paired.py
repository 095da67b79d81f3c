"""JAX and PyTorch on the same device, in turns: the table that is printed, the file that is kept."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks import machine

PACKAGES = ("jax", "jaxlib", "flax", "torch")


def cell(ours: Callable, theirs: Callable, repeats: int) -> dict[str, float]:
    """Both medians and their ratio; above 1 JAX is faster."""
    taken = machine.medians({"jax": ours, "torch": theirs}, repeats)
    return {"jax_s": taken["jax"], "torch_s": taken["torch"], "ratio": taken["torch"] / taken["jax"]}


def parser(doc: str | None, batch: int, repeats: int) -> argparse.ArgumentParser:
    """What the programs have in common."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--batch", type=int, default=batch)
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--json", type=Path, help="also write the table here")
    return made


def report(rows: Sequence[dict], module: str, path: Path | None) -> None:
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
        about = machine.about(module, None, PACKAGES) | {"threads": torch.get_num_threads()}
        path.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")

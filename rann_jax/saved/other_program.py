"""Predictions that another program wrote: which arrays they need, in which types, and what follows from them.

Needs no JAX: a program that starts runs in other processes leaves the devices to them.
"""

from collections.abc import Mapping

import numpy as np

from rann_jax.tasks import ROUNDING, SUM_TOLERANCE

KEYS = {"ids", "targets", "probabilities", "labels"}
MEND = "write ids (n,), targets (n, C) of 0 and 1, probabilities (n, C) and labels (C,)"


def typed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays in the types of a run's file; those that cannot be converted stay as they are.

    Raises:
      ValueError: names in bytes are not UTF-8.
    """
    converted = dict(arrays)
    for name in ("ids", "labels", "task"):
        if name in arrays:
            converted[name] = _names(arrays[name])
    if _numbers(arrays, "targets") and np.isin(arrays["targets"], (0, 1)).all():
        converted["targets"] = arrays["targets"].astype(np.uint8)
    if _numbers(arrays, "probabilities"):
        with np.errstate(over="ignore"):  # infinity is refused as any number above 1
            given = arrays["probabilities"].astype(np.float32)
        converted["probabilities"] = np.where((given > 1) & (given <= 1 + ROUNDING), np.float32(1), given)
    return converted


def task_of(ids: np.ndarray, targets: np.ndarray, probabilities: np.ndarray) -> str:
    """Return the task of predictions: tagging if a clip has several classes or none, else classification.

    Raises:
      ValueError: every clip has one class, but probabilities do not sum to 1, so that both are possible.
    """
    if (targets.sum(axis=1, dtype=np.int64) != 1).any():
        return "tagging"
    sums = probabilities.sum(axis=1, dtype=np.float64)
    off = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if not len(off):
        return "classification"
    raise ValueError(
        f"every clip has one class, but the probabilities of clip {ids[off[0]]} sum to {sums[off[0]]:g}: "
        "divide them by their sum, or write task='tagging'"
    )


def _numbers(arrays: Mapping[str, np.ndarray], name: str) -> bool:
    return name in arrays and arrays[name].dtype.kind in "biuf"


def _names(array: np.ndarray) -> np.ndarray:
    """Return names in bytes, as HDF5 has them, or whole numbers as text."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    return array.astype(np.str_) if array.dtype.kind in "iu" else array

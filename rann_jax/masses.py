"""Checks of the masses, weights and targets that are fused: what is malformed raises ValueError.

Values are checked where they are known, outside of jit; shapes always.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rann_jax.tasks import ROUNDING, SUM_TOLERANCE, TASKS

Masses = ArrayLike | Sequence[Any]  # arrays, or nested lists of numbers


def checked_for(task: str, probs: Masses, *, model: str = "") -> jax.Array:
    """Return the probabilities of a task (M, ..., C) in at least float32; errors name a single `model`.

    Raises:
      ValueError: the task is unknown, or the probabilities are malformed, as when those of classification do
        not sum to 1.
    """
    if task not in TASKS:
        raise ValueError(
            f"task must be classification or tagging, not {task!r}: classification is for one class per "
            "example, tagging for any number (multi-label)"
        )
    return checked(probs, sums_to_one=task == "classification", model=model)


def checked(values: Masses, *, sums_to_one: bool = True, model: str = "") -> jax.Array:
    """Return the values (M, ..., C) in at least float32.

    Raises:
      ValueError: they are not of this shape, empty, not finite, outside [0, 1], or do not sum to 1.
    """
    if not isinstance(values, jax.Array):
        values = np.asarray(values)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(
            f"probabilities must be (models, ..., classes) and not empty, not of shape {values.shape}"
        )
    if not isinstance(values, jax.core.Tracer):
        _check_values(values, sums_to_one, model)
    return _floating(values)


def _floating(values: jax.Array | np.ndarray) -> jax.Array:
    """Return the values in float64 if that is enabled and given, else in float32."""
    if isinstance(values, np.ndarray):
        values = values.astype(values.dtype.newbyteorder("="), copy=False)  # JAX takes no other byte order
    array = jnp.asarray(values)
    return array.astype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def _check_values(values: jax.Array | np.ndarray, sums_to_one: bool, model: str) -> None:
    known = np.asarray(values, np.float64)
    for wrong, says in (
        (~np.isfinite(known), "is not finite"),
        (known < 0, "is negative"),
        (known > 1 + ROUNDING, "is greater than 1"),
    ):
        if wrong.any():
            where = tuple(map(int, np.argwhere(wrong)[0]))
            which = model or f"model {where[0]}"
            raise ValueError(f"probability {known[where]:g} of {which} at {where[1:]} {says}")
    sums = known.sum(-1)
    if sums_to_one and (off := np.abs(sums - 1) > SUM_TOLERANCE).any():
        where = tuple(map(int, np.argwhere(off)[0]))
        which = model or f"model {where[0]}"
        raise ValueError(
            f"masses of {which} at {where[1:]} sum to {sums[where]:g}, not to 1: divide by "
            "probs.sum(-1, keepdims=True), or fuse with task='tagging' if they are multi-label"
        )


def checked_weights(weights: Masses | None, models: int) -> jax.Array:
    """Return the weights (M,), scaled to sum to 1; equal ones for None. Traced ones are not checked.

    Raises:
      ValueError: they are not one per model, not finite, negative or all zero.
    """
    if weights is None:
        return jnp.full(models, 1 / models, jnp.float32)
    if not isinstance(weights, jax.Array):
        weights = np.asarray(weights)
    if weights.shape != (models,):
        raise ValueError(f"weights must be one per model, {models} here, not of shape {weights.shape}")
    if isinstance(weights, jax.core.Tracer):
        array = _floating(weights)
        return array / array.sum()
    known = np.asarray(weights, np.float64)
    if not np.isfinite(known).all() or (known < 0).any() or not known.any():
        raise ValueError("weights must be finite, not negative and not all zero")
    known = known / known.max()  # so that neither their sum nor float32 over- or underflows
    return _floating(known / known.sum())


def checked_targets(targets: Masses, shape: tuple[int, ...], *, model: str = "each model") -> np.ndarray:
    """Return targets (n, C), one-hot or multi-hot, as uint8; `shape` is that of a model's probabilities.

    Raises:
      ValueError: the shapes differ or are not (n, C), or a target is not 0 or 1.
    """
    array = np.asarray(targets)
    if len(shape) != 2 or array.shape != shape:
        mend = ": give class indices y as np.eye(C)[y]" if array.ndim == 1 else ""
        raise ValueError(
            f"targets and the probabilities of {model} must both be (n, C), not {array.shape} and "
            f"{shape}{mend}"
        )
    if not np.isin(array, (0, 1)).all():
        raise ValueError("targets must be 0 or 1")
    return array.astype(np.uint8)

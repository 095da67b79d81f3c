"""Rules that fuse the class probabilities of several models: (M, ..., C) -> (..., C).

The first axis holds the M models, the last the C classes; arrays and nested lists are accepted. A model's
probabilities are read as a mass function of evidence theory with all mass on single classes. Dempster's rule
is then a normalised product; it is computed from logarithms, so that ten models with a thousand classes do
not underflow in float32. Masses below float32's smallest normal number, 1e-38, count as zero.

In tagging, several classes can hold at once, so every class is a separate question with the frame
{class, not class}. `binary_frames` turns probabilities into such masses; `fuse` does this itself.

All rules are pure and can be jitted, vmapped and differentiated (in the rules that multiply, the gradient
with respect to a mass of exactly zero is taken as zero). Outside of jit, malformed masses raise ValueError;
inside, where values are unknown, only shapes are checked.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Masses = ArrayLike | Sequence[Any]  # arrays, or nested lists of numbers

SUM_TOLERANCE = 1e-3  # (ours) allowed deviation of a sum of masses from 1: bfloat16 networks are not exact
NO_SUPPORT = 1e-6  # (ours) support below this is rounding error
TINY = float(jnp.finfo(jnp.float32).tiny)


def _rule(combine: Callable[[jax.Array], jax.Array]) -> Callable[[Masses], jax.Array]:
    """Return a function compiled, and with its masses checked."""
    compiled = jax.jit(combine)

    @functools.wraps(combine)
    def checking(masses: Masses) -> jax.Array:
        return compiled(_checked(masses))

    return checking


def weighted_average(probs: Masses, weights: Masses | None = None) -> jax.Array:
    """Return the mean of the models, sum_i w_i m_i(A), the deck's WA; also for multi-label probabilities.

    Args:
      probs: (M, ..., C), each in [0, 1].
      weights: (M,), not negative; they are scaled to sum to 1. None means equal weights.

    Returns:
      (..., C).

    Raises:
      ValueError: malformed probabilities or weights.

    >>> weighted_average([[0.5, 0.5], [1, 0]], weights=[1, 1]).tolist()
    [0.75, 0.25]
    """
    return _weighted_average(_checked(probs, sums_to_one=False), weights)


@_rule
def dempster_shafer(masses: jax.Array) -> jax.Array:
    """Return Dempster's rule on single classes: prod_i m_i(A) / sum_B prod_i m_i(B), the deck's D-S.

    Where the models contradict each other completely, every product is zero and the rule is undefined. There
    the result is the average, and `conflict` is 1.

    A mass of exactly 0 is a veto that no other model can outweigh. Float32 rounds a sigmoid to 1, and so the
    mass against the class to 0, from a logit of about 17.

    Args:
      masses: (M, ..., C), not negative, summing to 1 over the last axis.

    Returns:
      (..., C), summing to 1.

    Raises:
      ValueError: malformed masses.

    >>> dempster_shafer([[0.99, 0.01, 0], [0, 0.01, 0.99]]).tolist()  # Zadeh's paradox
    [0.0, 1.0, 0.0]
    """
    return _normalised(_log(masses).sum(0), masses.mean(0))


@_rule
def improved_dempster_shafer(masses: jax.Array) -> jax.Array:
    """Combine a support- and certainty-weighted average with itself M - 1 times, for the deck's improved D-S.

    This is a reconstruction. The deck follows Li et al., Sensors 17(8) 1729 (2017), "distance matrix of the
    evidences and modified Gini index", whose exact formulas we could not obtain. Here a model's weight is
    Deng's support times exp(-g), where g = 1 - sum_A m(A)^2 is the Gini impurity of its masses; the
    exponential is (ours).

    Arguments, result and errors are those of `dempster_shafer`.
    """
    impurity = 1 - jnp.square(masses).sum(-1, keepdims=True)
    return _self_combined(_credible_average(masses, jnp.exp(-impurity)), len(masses))


@_rule
def murphy(masses: jax.Array) -> jax.Array:
    """Combine the average with itself M - 1 times: Murphy's rule (Decision Support Systems 29, 2000).

    Arguments, result and errors are those of `dempster_shafer`.

    >>> [round(p, 4) for p in murphy([[0.5, 0.5], [1, 0]]).tolist()]  # (3/4, 1/4), squared, scaled
    [0.9, 0.1]
    """
    return _self_combined(masses.mean(0), len(masses))


@_rule
def deng(masses: jax.Array) -> jax.Array:
    """Return Deng's rule: Murphy's, but each model is weighted by the support that the others give it.

    The support of model i is sum_{j != i} (1 - d_ij), where d_ij = sqrt(|m_i - m_j|^2 / 2) is Jousselme's
    distance on single classes (Deng et al., Decision Support Systems 38, 2004). If no model supports another,
    weights are equal.

    Arguments, result and errors are those of `dempster_shafer`.
    """
    return _self_combined(_credible_average(masses, jnp.ones_like(masses[..., :1])), len(masses))


@_rule
def conflict(masses: jax.Array) -> jax.Array:
    """Return Dempster's conflict k = 1 - sum_A prod_i m_i(A).

    0 means agreement on one class, 1 complete contradiction.

    Args:
      masses: (M, ..., C), as for `dempster_shafer`.

    Returns:
      (...,) in [0, 1].

    Raises:
      ValueError: malformed masses.

    >>> round(float(conflict([[0.99, 0.01, 0], [0, 0.01, 0.99]])), 4)
    0.9999
    """
    log_product = _log(masses).sum(0)
    possible = jnp.isfinite(log_product).any(-1)
    log_sum = jax.nn.logsumexp(jnp.where(possible[..., None], log_product, 0.0), axis=-1)
    return jnp.where(possible, jnp.clip(-jnp.expm1(log_sum), 0.0, 1.0), 1.0)


# By the names that the programs take. A new rule is a function of masses (M, ..., C), and a line here.
RULES: dict[str, Callable[..., jax.Array]] = {
    "wa": weighted_average,
    "ds": dempster_shafer,
    "ids": improved_dempster_shafer,
    "murphy": murphy,
    "deng": deng,
}


def fuse(
    rule: str, probs: Masses, *, task: str = "classification", weights: Masses | None = None
) -> jax.Array:
    """Fuse with the rule of that name, for either task.

    Args:
      rule: one of RULES: wa, ds, ids, murphy, deng.
      probs: (M, ..., C) class probabilities of the models.
      task: "classification" (probabilities sum to 1) or "tagging" (each class by itself).
      weights: (M,) weights of the models; only the weighted average takes them.

    Returns:
      (..., C).

    Raises:
      ValueError: the rule or task is unknown, the rule takes no weights, or probabilities are malformed.

    >>> fuse("wa", [[1, 0.75], [0.5, 0.75]], task="tagging").tolist()
    [0.75, 0.75]
    """
    if rule not in RULES:
        raise ValueError(f"no fusion rule {rule!r}: use one of {', '.join(RULES)}")
    if rule == "wa":
        return _weighted_average(_checked_for(task, probs), weights)
    if weights is not None:
        raise ValueError(f"rule {rule!r} takes no weights, only 'wa' does")
    # Inside jit a rule does not check the values of the masses again.
    fused = jax.jit(RULES[rule])(masses_for(task, probs))
    return fused[..., 0] if task == "tagging" else fused


def masses_for(task: str, probs: Masses) -> jax.Array:
    """Return a task's probabilities as mass functions: (M, ..., C), or (M, ..., C, 2) for tagging.

    Raises:
      ValueError: an unknown task or malformed probabilities.
    """
    checked = _checked_for(task, probs)
    return _binary_frames(checked) if task == "tagging" else checked


def binary_frames(probs: Masses) -> jax.Array:
    """Turn probabilities of single classes (M, ..., C) into masses (M, ..., C, 2) on {class, not class}.

    `dempster_shafer(binary_frames(probs))[..., 0]` is the multi-label rule; `conflict` then gives one value
    per class.

    Raises:
      ValueError: the probabilities are not of this shape, outside [0, 1] or not finite.
    """
    return _binary_frames(_checked(probs, sums_to_one=False))


def _weighted_average(probs: jax.Array, weights: Masses | None) -> jax.Array:
    weights = _checked_weights(weights, len(probs))
    return jnp.tensordot(weights.astype(probs.dtype), probs, axes=1)


def _binary_frames(probs: jax.Array) -> jax.Array:
    # Rounding can put a probability above 1: it is set to 1, else its complement would be negative.
    probs = jnp.where(probs > 1, 1.0, probs)
    return jnp.stack([probs, 1 - probs], axis=-1)


def _self_combined(mass: jax.Array, times: int) -> jax.Array:
    """Return Dempster's rule on `times` copies of one mass function, which are never in complete conflict."""
    return _normalised(times * _log(mass), mass)


def _normalised(log_product: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Return exp(log_product) scaled to sum to 1 over the classes, or `otherwise` where all of it is zero."""
    possible = jnp.isfinite(log_product).any(-1, keepdims=True)
    # Also replace the input of the softmax: its gradient would be NaN where every class is impossible.
    return jnp.where(possible, jax.nn.softmax(jnp.where(possible, log_product, 0.0)), otherwise)


def _credible_average(masses: jax.Array, reliability: jax.Array) -> jax.Array:
    """Return the average of (M, ..., C), weighted by support times reliability (M, ..., 1)."""
    # The differences are (M, M, ..., C), which compiled code never holds in memory at once.
    squared = 0.5 * jnp.square(masses[:, None] - masses[None]).sum(-1, keepdims=True)
    apart = squared > 0
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)  # finite gradient at 0
    # Minus 1: a model does not support itself.
    support = jnp.clip((1 - distance).sum(1) - 1, 0.0, None) * reliability
    total = support.sum(0, keepdims=True)
    supported = total > NO_SUPPORT
    weights = jnp.where(supported, support / jnp.where(supported, total, 1.0), 1 / len(masses))
    return (weights * masses).sum(0)


def _log(masses: jax.Array) -> jax.Array:
    possible = masses >= TINY
    return jnp.where(possible, jnp.log(jnp.where(possible, masses, 1.0)), -jnp.inf)


def _checked_for(task: str, probs: Masses) -> jax.Array:
    if task not in ("classification", "tagging"):
        raise ValueError(f"task must be classification or tagging, not {task!r}")
    return _checked(probs, sums_to_one=task == "classification")


def _checked(values: Masses, *, sums_to_one: bool = True) -> jax.Array:
    """Return the values in at least float32; check shapes always, and values where they are known."""
    if not isinstance(values, jax.Array):
        values = np.asarray(values)
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(
            f"probabilities must be (models, ..., classes) and not empty, not of shape {values.shape}"
        )
    if not isinstance(values, jax.core.Tracer):
        _check_values(values, sums_to_one)
    return _floating(values)


def _floating(values: jax.Array | np.ndarray) -> jax.Array:
    """Return the values in float64 if that is enabled and given, else in float32."""
    array = jnp.asarray(values)
    return array.astype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def _check_values(values: jax.Array | np.ndarray, sums_to_one: bool) -> None:
    known = np.asarray(values, np.float64)
    for wrong, says in (
        (~np.isfinite(known), "is not finite"),
        (known < 0, "is negative"),
        (known > 1 + SUM_TOLERANCE, "is greater than 1"),
    ):
        if wrong.any():
            where = tuple(map(int, np.argwhere(wrong)[0]))
            raise ValueError(f"probability {known[where]:g} of model {where[0]} at {where[1:]} {says}")
    sums = known.sum(-1)
    if sums_to_one and (off := np.abs(sums - 1) > SUM_TOLERANCE).any():
        where = tuple(map(int, np.argwhere(off)[0]))
        raise ValueError(f"masses of model {where[0]} at {where[1:]} sum to {sums[where]:g}, not to 1")


def _checked_weights(weights: Masses | None, models: int) -> jax.Array:
    """Return the weights (M,), scaled to sum to 1."""
    if weights is None:
        return jnp.full(models, 1 / models, jnp.float32)
    if not isinstance(weights, jax.Array):
        weights = np.asarray(weights)
    if weights.shape != (models,):
        raise ValueError(f"weights must be one per model, {models} here, not of shape {weights.shape}")
    if not isinstance(weights, jax.core.Tracer):
        known = np.asarray(weights, np.float64)
        if not np.isfinite(known).all() or (known < 0).any() or not known.sum() > 0:
            raise ValueError("weights must be finite, not negative and not all zero")
    array = _floating(weights)
    return array / array.sum()

"""Rules that fuse the class probabilities of several models: (M, ..., C) -> (..., C).

The first axis holds the M models, the last the C classes; arrays and nested lists are accepted. A model's
probabilities are read as a mass function of evidence theory with all mass on single classes. Dempster's rule
is then a normalised product; it is computed from logarithms, so that ten models with a thousand classes do
not underflow in float32. Masses below float32's smallest normal number, 1e-38, count as zero.

In tagging, several classes can hold at once, so every class is a separate question with the frame
{class, not class}. `binary_frames` turns probabilities into such masses; `fuse` does this itself.

All rules are pure and can be jitted, vmapped and differentiated (in the rules that multiply, the gradient
with respect to a mass of exactly zero is taken as zero). Outside of jit, malformed masses raise ValueError;
inside, where values are unknown, only shapes are checked. Sums may be off by SUM_TOLERANCE of `tasks`, as
probabilities of a csv file are: `fuse` and `masses_for` divide by the sum, the rules take masses as they are.
"""

import difflib
import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rann_jax.masses import Masses, checked, checked_for, checked_targets, checked_weights

NO_SUPPORT = 1e-6  # (ours) support below this is rounding error
TINY = float(jnp.finfo(jnp.float32).tiny)


class Rule(Protocol):
    """A function that takes masses (M, ..., C), also by keyword."""

    def __call__(self, masses: Masses) -> jax.Array:
        """Return the fused masses (..., C), or their conflict (...,)."""


def _rule(combine: Callable[[jax.Array], jax.Array]) -> Rule:
    """Return a function compiled, and with its masses checked."""
    compiled = jax.jit(combine)

    @functools.wraps(combine)
    def checking(masses: Masses) -> jax.Array:
        return compiled(checked(masses))

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
    return _weighted_average(checked(probs, sums_to_one=False), weights)


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
        raise ValueError(f"no fusion rule {rule!r}: use one of {', '.join(RULES)}" + suggested_rule(rule))
    if rule == "wa":
        return _weighted_average(_scaled_for(task, probs), weights)
    if weights is not None:
        raise ValueError(f"rule {rule!r} takes no weights, only 'wa' does")
    # Inside jit a rule does not check the values of the masses again.
    fused = jax.jit(RULES[rule])(masses_for(task, probs))
    return fused[..., 0] if task == "tagging" else fused


def suggested_rule(rule: str) -> str:
    """Return the end of a message about an unknown rule: the rule that it, or its function, is similar to.

    >>> suggested_rule("dempster_shafer"), suggested_rule("vote")
    ("; did you mean 'ds'?", '')
    """
    names = {getattr(function, "__name__", name): name for name, function in RULES.items()}
    names |= {name: name for name in RULES}
    close = difflib.get_close_matches(str(rule).lower(), names, n=1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def fit_weights(
    probs: Masses, targets: Masses, *, task: str = "classification", tolerance: float = 1e-6
) -> np.ndarray:
    """Return the weights of the average that maximise the likelihood of the targets.

    Fit them on examples that are neither scored later nor were used to train a model.

    Args:
      probs: (M, n, C) probabilities of the models, as `fuse` takes them.
      targets: (n, C), one-hot, or multi-hot for tagging.
      task: "classification" (one class per example) or "tagging" (any number).
      tolerance: the log-likelihood is at most this far below its maximum, in nats per example; in tagging,
        where every class is a separate question, per example and class.

    Returns:
      (M,) float64, summing to 1.

    Raises:
      ValueError: the task is unknown, or probabilities or targets are malformed.

    >>> fit_weights([[[0.9, 0.1]], [[0.2, 0.8]]], [[1, 0]]).round(3)
    array([1., 0.])
    """
    known = np.asarray(_scaled_for(task, probs), np.float64)
    truth = checked_targets(targets, known.shape[1:])
    if task == "tagging":
        likelihood = np.where(truth > 0, known, 1 - known).reshape(len(known), -1)
    else:
        likelihood = (known * truth).sum(-1)
    likelihood = np.maximum(likelihood, 1e-7)  # (ours) no single confident error may dominate
    return _most_likely(likelihood, tolerance)


def masses_for(task: str, probs: Masses) -> jax.Array:
    """Return a task's probabilities as mass functions: (M, ..., C), or (M, ..., C, 2) for tagging.

    Raises:
      ValueError: an unknown task or malformed probabilities.
    """
    scaled = _scaled_for(task, probs)
    return _binary_frames(scaled) if task == "tagging" else scaled


def binary_frames(probs: Masses) -> jax.Array:
    """Turn probabilities of single classes (M, ..., C) into masses (M, ..., C, 2) on {class, not class}.

    `dempster_shafer(binary_frames(probs))[..., 0]` is the multi-label rule; `conflict` then gives one value
    per class.

    Raises:
      ValueError: the probabilities are not of this shape, outside [0, 1] or not finite.
    """
    return _binary_frames(checked(probs, sums_to_one=False))


def _scaled_for(task: str, probs: Masses) -> jax.Array:
    """Return the checked probabilities of a task; those of classification sum to 1."""
    known = checked_for(task, probs)
    if task == "tagging":
        return known
    total = known.sum(-1, keepdims=True)
    return known / jnp.where(total > 0, total, 1.0)  # in jit, where nothing is checked, all may be zero


def _most_likely(likelihood: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the weights (M,) of the likeliest mixture, given each model's likelihood of n targets (M, n).

    The log-likelihood is concave in the weights. Expectation maximisation takes at most 10,000 rounds.
    """
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(10_000):
        gain = (likelihood / (weights @ likelihood)).mean(axis=1)
        if gain.max() < 1 + tolerance:  # the log-likelihood is at most log(max gain) below its maximum
            break
        weights = weights * gain
    return weights / weights.sum()


def _weighted_average(probs: jax.Array, weights: Masses | None) -> jax.Array:
    weights = checked_weights(weights, len(probs))
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

"""Adam with a one-cycle or constant learning rate, and the moving average of the weights.

The one-cycle schedule (L. Smith and N. Topin, "Super-convergence", 2017; the deck's [15]) equals
torch.optim.lr_scheduler.OneCycleLR with its cosine annealing, step by step, beta1 cycling included;
optax's cosine_onecycle_schedule peaks one step later and leaves beta1 alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def one_cycle(
    total_steps: int,
    *,
    initial: float,
    peak: float,
    final: float,
    pct_start: float = 0.3,
) -> Schedule:
    """Cosine from `initial` to `peak`, then to `final` at step total_steps - 1; constant after it.

    Args:
      total_steps: optimiser steps of the whole run, at least 2.
      initial: value at step 0.
      peak: value at step pct_start * total_steps - 1.
      final: value at the last step.
      pct_start: share of the steps that rise, in (0, 1).

    Returns:
      step (0 for the first update) -> value, float32.

    Raises:
      ValueError: total_steps or pct_start is out of range.
    """
    if total_steps < 2 or not 0 < pct_start < 1:
        raise ValueError(
            f"one_cycle needs total_steps >= 2 and 0 < pct_start < 1, not {total_steps}, {pct_start}"
        )
    rise_end = pct_start * total_steps - 1
    last = total_steps - 1

    def anneal(begin: float, end: float, remaining: jax.Array) -> jax.Array:
        # cos^2 written as sin^2 of what remains: (1 + cos) / 2 would cancel near the end, where the
        # learning rate is 2.5e5 times smaller than at the peak.
        return end + (begin - end) * jnp.sin(jnp.pi / 2 * remaining) ** 2

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.minimum(jnp.asarray(step).astype(jnp.float32), last)
        # A rise of no length (pct_start * total_steps <= 1) begins at the peak.
        rising = anneal(initial, peak, (rise_end - step) / max(rise_end, 1e-9))
        falling = anneal(peak, final, (last - step) / (last - rise_end))
        return jnp.where(step <= rise_end, rising, falling)

    return schedule


def constant(value: float) -> Schedule:
    """The same value at every step."""
    return lambda step: jnp.full((), value, jnp.float32)


def adam(
    *,
    schedule: str,
    learning_rate: float,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    b1: float = 0.9,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015) under a schedule; defaults are torch's.

    Args:
      schedule: "one_cycle" (learning_rate is its maximum, beta1 goes from max_momentum to base_momentum
        and back) or "constant" (learning_rate and b1 as given).
      learning_rate: maximum or constant rate; the paper has 1e-3 for AudioSet, 2e-4 on small sets.
      total_steps: updates of the whole run, the length of the cycle.
      pct_start: share of the steps that rise.
      div_factor: learning_rate / initial rate.
      final_div_factor: initial rate / final rate.
      b1: beta1 of the constant schedule.
      base_momentum: least beta1 of the cycle, at the peak rate.
      max_momentum: greatest beta1 of the cycle, at its ends.
      b2: beta2.
      eps: added to the root of the second moment.

    Returns:
      The transformation; the rate and beta1 of the last update are in its state's `hyperparams`.

    Raises:
      ValueError: unknown schedule, or a length or share out of range.
    """
    if schedule == "constant":
        rate, beta1 = constant(learning_rate), constant(b1)
    elif schedule == "one_cycle":
        initial = learning_rate / div_factor
        rate = one_cycle(
            total_steps,
            initial=initial,
            peak=learning_rate,
            final=initial / final_div_factor,
            pct_start=pct_start,
        )
        beta1 = one_cycle(
            total_steps,
            initial=max_momentum,
            peak=base_momentum,
            final=max_momentum,
            pct_start=pct_start,
        )
    else:
        raise ValueError(f"schedule must be 'one_cycle' or 'constant', not {schedule!r}")
    inner = optax.inject_hyperparams(optax.adam, static_args=("b2", "eps"))(
        learning_rate=rate, b1=beta1, b2=b2, eps=eps
    )

    def update(updates, state, params=None):
        # optax raises a float32 beta1 to an int32 power, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def update_ema(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """Exponential moving average of a tree after update number `step` (1 for the first).

    The decay (0.999: the code of MixMatch, which the paper cites) is reached gradually,
    min(decay, (1 + step) / (10 + step)): without this warm-up, which is ours, the random start would weigh
    in the averages of short runs.
    """
    count = step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda a, n: a + (1 - rate) * (n - a), average, new)

"""Adam with a one-cycle or constant learning rate, per part of the network; the moving average of weights.

The one-cycle schedule (L. Smith and N. Topin, "Super-convergence", 2017; the deck's [15]) equals
torch.optim.lr_scheduler.OneCycleLR with cosine annealing at every step, including the cycling of beta1.
In contrast, optax's cosine_onecycle_schedule peaks one step later and does not cycle beta1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    """Return a cosine from `initial` to `peak`, then to `final` at step total_steps - 1; constant after that.

    Args:
      total_steps: optimiser steps of the whole run, at least 2.
      initial: value at step 0.
      peak: value at step pct_start * total_steps - 1.
      final: value at the last step.
      pct_start: share of the steps in the rise, in (0, 1).

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
        # The cosine is written as sin^2 of the remaining share: (1 + cos) / 2 would lose precision near the
        # end, where the learning rate is 2.5e5 times smaller than at the peak.
        return end + (begin - end) * jnp.sin(jnp.pi / 2 * remaining) ** 2

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.minimum(jnp.asarray(step).astype(jnp.float32), last)
        # A rise of zero length (pct_start * total_steps = 1) starts at the peak, a shorter one past it.
        rising = anneal(initial, peak, (rise_end - step) / max(rise_end, 1e-9))
        falling = anneal(peak, final, (last - step) / (last - rise_end))
        return jnp.where(step <= rise_end, rising, falling)

    return schedule


def constant(value: float) -> Schedule:
    """Return a schedule with the same value at every step."""
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
    amsgrad: bool = False,
    head_learning_rate: float | None = None,
    groups: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """Return Adam (Kingma and Ba, 2015) with a schedule; the defaults are torch's.

    Args:
      schedule: "one_cycle" (learning_rate is its maximum, beta1 goes from max_momentum to base_momentum
        and back) or "constant" (learning_rate and b1 as given).
      learning_rate: maximum or constant rate; the paper uses 1e-3 for AudioSet, 2e-4 on small sets.
      total_steps: number of updates of the whole run, which is the length of the cycle.
      pct_start: share of the steps in which the rate rises.
      div_factor: learning_rate / initial rate.
      final_div_factor: initial rate / final rate.
      b1: beta1 of the constant schedule.
      base_momentum: smallest beta1 of the cycle, at the peak rate.
      max_momentum: largest beta1 of the cycle, at its ends.
      b2: beta2.
      eps: added to the root of the second moment.
      amsgrad: whether to replace the second moment by its maximum so far (Reddi et al., 2018).
      head_learning_rate: like learning_rate, for the parameters that `groups` labels "head"; None means the
        same rate.
      groups: params -> a tree of the same structure with labels "trunk", "head" or "frozen"; "frozen"
        parameters are not updated. None labels all parameters "trunk".

    Returns:
      The transformation. Its state has the learning rate (of the trunk) and beta1 of the last update in
      `hyperparams`, and no moments for frozen parameters.

    Raises:
      ValueError: unknown schedule, or a length, share or rate out of range.
    """
    head_rate = learning_rate if head_learning_rate is None else head_learning_rate
    for name, value in (("learning_rate", learning_rate), ("head_learning_rate", head_rate)):
        if not value > 0:
            raise ValueError(f"{name}={value:g} must be positive; frozen=('trunk',) trains the head alone")
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

    head_factor = head_rate / learning_rate

    def transformation(learning_rate: jax.Array, b1: jax.Array) -> optax.GradientTransformation:
        def with_rate(rate: jax.Array) -> optax.GradientTransformation:
            scale = scale_by_amsgrad if amsgrad else optax.scale_by_adam
            return optax.chain(scale(b1=b1, b2=b2, eps=eps), optax.scale_by_learning_rate(rate))

        if groups is None:
            return with_rate(learning_rate)
        of_head = learning_rate * head_factor
        return optax.partition(
            {"trunk": with_rate(learning_rate), "head": with_rate(of_head), "frozen": optax.set_to_zero()},
            groups,
        )

    inner = optax.inject_hyperparams(transformation)(learning_rate=rate, b1=beta1)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        # optax raises a float32 beta1 to an int32 power, which strict dtype promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


class AmsgradState(NamedTuple):
    """The number of updates done, both moments, and the maximum of the second moment so far."""

    updates: jax.Array
    mu: Any
    nu: Any
    nu_max: Any


def scale_by_amsgrad(*, b1: Any, b2: float, eps: float) -> optax.GradientTransformation:
    """Return Adam's step with the maximum of the second moment so far, as torch.optim.Adam(amsgrad=True).

    The bias is corrected after taking the maximum; optax.scale_by_amsgrad corrects it before.
    """

    def init(params: Any) -> AmsgradState:
        mu, nu, nu_max = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return AmsgradState(jnp.zeros((), jnp.int32), mu, nu, nu_max)

    def update(updates: Any, state: AmsgradState, params: Any = None) -> tuple[Any, AmsgradState]:
        count = state.updates + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, updates)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            return m / (1 - b1**count) / (jnp.sqrt(v / (1 - b2**count)) + eps)

        return jax.tree.map(step, mu, nu_max), AmsgradState(count, mu, nu, nu_max)

    return optax.GradientTransformation(init, update)


def update_ema(average: Any, new: Any, step: jax.Array, decay: float) -> Any:
    """Return the exponential moving average of a tree after update number `step` (1 for the first).

    The decay (0.999, from the code of MixMatch, which the paper cites) is reached gradually, as
    min(decay, (1 + step) / (10 + step)). Without this warm-up (ours), the random initial weights would still
    count in the averages of short runs.
    """
    count = step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(lambda a, n: a + (1 - rate) * (n - a), average, new)

"""Schedules and Adam against float64 transcriptions in NumPy; tests/parity compares with PyTorch itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rann_jax import optimizer


def one_cycle_float64(step: int, total: int, begin: float, peak: float, end: float, pct: float):
    """Return a value of PyTorch's documented OneCycleLR: two phases with cosine annealing."""
    edge = pct * total - 1
    if step <= edge:
        low, high, share = begin, peak, step / edge
    else:
        low, high, share = peak, end, (step - edge) / (total - 1 - edge)
    return high + (low - high) / 2 * (1 + np.cos(np.pi * share))


@pytest.mark.fast
@pytest.mark.parametrize(("total", "pct"), [(100, 0.3), (1234, 0.3), (10, 0.5), (600_000, 0.3), (10, 0.05)])
def test_one_cycle_at_every_phase(total, pct):
    steps = np.unique(np.linspace(0, total - 1, 200).astype(int))
    schedule = optimizer.one_cycle(total, initial=4e-5, peak=1e-3, final=4e-9, pct_start=pct)
    got = np.asarray(jax.vmap(schedule)(jnp.asarray(steps)))
    expected = [one_cycle_float64(s, total, 4e-5, 1e-3, 4e-9, pct) for s in steps]
    # Two steps before the end of 600,000 the rate is within 1e-9 of its last value, the limit of float32.
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.fast
def test_one_cycle_stays_at_its_end():
    schedule = optimizer.one_cycle(10, initial=1.0, peak=2.0, final=0.5)
    assert float(schedule(9)) == float(schedule(1000)) == 0.5


@pytest.mark.fast
def test_a_rise_of_one_step_starts_at_the_peak():
    assert float(optimizer.one_cycle(10, initial=1.0, peak=2.0, final=0.5, pct_start=0.1)(0)) == 2.0


@pytest.mark.fast
@pytest.mark.parametrize(("total", "pct"), [(1, 0.3), (10, 0.0), (10, 1.0)])
def test_impossible_cycles_are_refused(total, pct):
    with pytest.raises(ValueError, match="one_cycle needs"):
        optimizer.one_cycle(total, initial=1.0, peak=2.0, final=0.5, pct_start=pct)


@pytest.mark.fast
def test_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="'one_cycle' or 'constant'"):
        optimizer.adam(schedule="cosine", learning_rate=1.0, total_steps=10)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({"learning_rate": 0.0}, "^learning_rate=0 must be positive"),
        ({"learning_rate": -1e-3}, "^learning_rate=-0.001"),
        ({"learning_rate": float("nan")}, "^learning_rate=nan"),
        ({"learning_rate": 1e-3, "head_learning_rate": 0.0}, "^head_learning_rate=0 must"),
    ],
)
def test_rates_that_are_not_positive_are_refused(rates, says):
    with pytest.raises(ValueError, match=says):
        optimizer.adam(schedule="constant", total_steps=10, **rates)


DEFAULTS = {
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "base_momentum": 0.85,
    "max_momentum": 0.95,
    "pct_start": 0.3,
    "div_factor": 25.0,
    "final_div_factor": 1e4,
}
OTHERS = dict(zip(DEFAULTS, (0.8, 0.9, 1e-2, 0.6, 0.7, 0.4, 10.0, 50.0), strict=True))


@pytest.mark.parametrize("given", [{}, OTHERS], ids=["defaults", "options"])
@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_adam_against_float64(schedule, given):
    total = 40
    rng = np.random.default_rng(0)
    weights = rng.normal(size=7)
    tx = optimizer.adam(schedule=schedule, learning_rate=1e-2, total_steps=total, **given)
    params = jnp.asarray(weights, jnp.float32)
    state = tx.init(params)
    m, v = np.zeros(7), np.zeros(7)
    update = jax.jit(tx.update)
    b1, b2, eps, low, high, pct, div, final_div = (DEFAULTS | given).values()
    for step in range(total):
        gradient = rng.normal(size=7)
        updates, state = update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        rate, beta1 = 1e-2, b1
        if schedule == "one_cycle":
            rate = one_cycle_float64(step, total, 1e-2 / div, 1e-2, 1e-2 / div / final_div, pct)
            beta1 = one_cycle_float64(step, total, high, low, high, pct)
        m = beta1 * m + (1 - beta1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        corrected = np.sqrt(v / (1 - b2 ** (step + 1))) + eps
        weights = weights - rate * m / (1 - beta1 ** (step + 1)) / corrected
    np.testing.assert_allclose(params, weights, rtol=1e-5)


@pytest.mark.fast
def test_ema_warms_up_and_then_keeps_its_decay():
    average = {"w": jnp.zeros((), jnp.float32)}
    new = {"w": jnp.ones((), jnp.float32)}
    first = optimizer.update_ema(average, new, jnp.asarray(1), 0.999)
    late = optimizer.update_ema(average, new, jnp.asarray(100_000), 0.999)
    assert float(first["w"]) == pytest.approx(1 - 2 / 11)
    assert float(late["w"]) == pytest.approx(1e-3, rel=1e-4)

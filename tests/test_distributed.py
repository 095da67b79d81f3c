"""Batches of several processes: what is compiled to bring their parts together."""

import jax
import numpy as np
import pytest

from rann_jax import distributed

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """Grows by one for each program that is compiled."""
    seen = []

    def note(event: str, seconds: float, **_: object) -> None:
        if event == COMPILED:
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.fast
def test_rows_of_all_processes_are_gathered_by_one_program(compilations, monkeypatch):
    """One for all batches of a run, also by a mesh that is made again, as each evaluation may."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    placed = jax.device_put({"rows": rows}, distributed.split_batch(distributed.data_mesh()))
    compilations.clear()
    for _ in range(3):
        gathered = distributed.gathered(placed, distributed.data_mesh())
        assert gathered["rows"].is_fully_replicated
        np.testing.assert_array_equal(gathered["rows"], rows)
    assert len(compilations) == 1

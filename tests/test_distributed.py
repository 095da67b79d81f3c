"""How several processes join, and what is compiled to gather their batches, simulated in one process."""

import dataclasses

import jax
import numpy as np
import pytest

from rann_jax import distributed
from rann_jax.errors import ConfigError

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A list that grows by one for each compiled program."""
    seen = []

    def note(event: str, seconds: float, **_: object) -> None:
        if event == COMPILED:
            seen.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield seen
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.fast
def test_one_program_gathers_the_rows_of_all_processes(compilations, monkeypatch):
    """One program serves all batches of a run, even if each evaluation makes its mesh anew."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    placed = jax.device_put({"rows": rows}, distributed.split_batch(distributed.data_mesh()))
    compilations.clear()
    for _ in range(3):
        gathered = distributed.gathered(placed, distributed.data_mesh())
        assert gathered["rows"].is_fully_replicated
        np.testing.assert_array_equal(gathered["rows"], rows)
    assert len(compilations) == 1


@pytest.mark.fast
@pytest.mark.parametrize("given", [(None, 2, None), ("host:1", None, None), ("host:1", 2, None)])
def test_an_incomplete_set_of_join_options_is_refused(given):
    with pytest.raises(ConfigError, match="--process_id belong together: give all or none"):
        distributed.start(*given)


@pytest.mark.fast
@pytest.mark.parametrize("model", [1, 2])
def test_a_mesh_has_its_devices_in_the_order_of_processes(model):
    """Batches are split in that order, whatever order JAX lists the devices in, as by their topology."""

    @dataclasses.dataclass(frozen=True)
    class Device:
        id: int
        process_index: int

    listed = [Device(id=number, process_index=number % 2) for number in (3, 0, 2, 1)]
    ids = [device.id for device in distributed.data_mesh(model, listed).devices.flat]
    assert ids == [0, 2, 1, 3]

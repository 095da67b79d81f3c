"""How several processes join, and what is compiled to gather their batches, simulated in one process."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from rann_jax import distributed
from rann_jax.errors import ConfigError
from tests.conftest import REPOSITORY, launched
from tests.running import free_port

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


# Process 1 is alive but does not come, as when it still prepares its data.
LATE = """
import sys, time
import jax
from rann_jax import distributed
from rann_jax.command_line.program import guarded
coordinator, index = sys.argv[1], int(sys.argv[2])
distributed.start(coordinator, 2, index)
jax.devices()  # which waits for those of the other process
def wait():
    distributed.wait_for_all("the data is prepared", seconds=1)
    return 0
if index == 1:
    time.sleep(600)
distributed.leave(guarded(wait))
"""


def test_a_wait_that_runs_out_is_one_line():
    coordinator = f"localhost:{free_port()}"
    first, late = [
        subprocess.Popen(
            [sys.executable, "-c", LATE, coordinator, str(index)],
            cwd=REPOSITORY,
            env=launched(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        _, said = first.communicate(timeout=120)
    finally:
        for process in (first, late):
            process.kill()
            process.communicate()
    assert first.returncode == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: 'the data is prepared' did not hold for all processes within 1 s: another process of this "
        "run is alive but slow, or hangs: see what it says, then run the same command again"
    ], said
    assert "Traceback" not in said


@pytest.mark.fast
def test_data_may_take_days_to_prepare(monkeypatch):
    """Hosts that prepare their own data may be hours apart."""
    waits = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        distributed.multihost, "get_barrier_sync_fn", lambda: lambda **barrier: waits.append(barrier)
    )
    distributed.wait_for_all("compiled")
    distributed.wait_for_all("prepared", seconds=distributed.PREPARE_SECONDS)
    assert [wait["timeout_ms"] for wait in waits] == [3600_000, 7 * 24 * 3600_000]

"""From one process to many: how they find each other, the mesh of their devices, who holds which part."""

import functools
import itertools
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

from rann_jax.errors import ConfigError

DATA, MODEL = "data", "model"
HEARTBEAT_SECONDS = 100  # JAX's default
WAIT_SECONDS = 3600  # for a process that compiles; a dead one is known by its heartbeat
LEAVE_SECONDS = 5  # (ours) for the others to fail too, each with its own message
_waits = itertools.count()  # every wait needs a name of its own


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Join the processes of this run; to be called before anything is computed.

    Without arguments a TPU slice, a Slurm step, an Open MPI job or a Kubernetes job is recognised by JAX, and
    what is none of them is a single process. `num_processes=1` is a single process wherever it runs.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      heartbeat_seconds: a process that is silent for so long is given up, and the others stop.

    Raises:
      ConfigError: only some of the three are given, or the others could not be reached.
    """
    if num_processes == 1 and coordinator is None:
        return
    given = (coordinator, num_processes, process_id)
    explicit = None not in given
    if not explicit and given != (None, None, None):
        raise ConfigError("--coordinator, --num_processes and --process_id belong together: give all or none")
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            # Nothing is looked up where all is said; in a Slurm step JAX would else pick the devices.
            cluster_detection_method="deactivate" if explicit else None,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        # What JAX says where it recognises no cluster: then this is the only process.
        if explicit or "coordinator_address should be defined" not in str(error):
            raise ConfigError(f"--coordinator, --num_processes, --process_id: {error}") from error
    except RuntimeError as error:
        raise ConfigError(f"the other processes of this run could not be joined: {error}") from error


def is_primary() -> bool:
    """Whether this is the process that writes what is written once: metrics, predictions, messages."""
    return jax.process_index() == 0


def data_mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes along the axis `data`; with `model` > 1 along `data` and `model`.

    Args:
      model: how many devices, neighbours in one process where they can be, hold an array in parts.
      devices: others than this run's, to compile for.

    Raises:
      ConfigError: the number of devices is no multiple of `model`.
    """
    # In the order of the processes, because batches are shared out in that order: so the rows of a batch are
    # the same for every number of processes, whatever the network between the devices looks like.
    chosen = jax.devices() if devices is None else devices
    ordered = np.array(sorted(chosen, key=lambda device: (device.process_index, device.id)))
    if model < 1 or len(ordered) % model:
        raise ConfigError(
            f"config.sharding.model={model} does not divide the {len(ordered)} devices: use a divisor"
        )
    # Auto: the default explicit axes refuse random permutations inside jit.
    if model == 1:
        return Mesh(ordered, (DATA,), axis_types=(AxisType.Auto,))
    return Mesh(ordered.reshape(-1, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is divided among all devices, along both axes of the mesh."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def check_batch_size(key: str, batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """Raise ConfigError unless the devices can share each of `parts` parts of a batch evenly."""
    if batch_size < 1 or parts < 1 or batch_size % (mesh.size * parts):
        in_parts = f" in config.accumulate={parts} parts" if parts != 1 else ""
        raise ConfigError(
            f"config.{key}={batch_size} cannot be shared by {mesh.size} devices{in_parts}: use a multiple of "
            f"{mesh.size * max(parts, 1)}"
        )


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's part (local_B, ...) of a global batch on its devices."""
    sharding = split_batch(mesh)
    # Intended: with several processes the transfer guard of the training loop would refuse it.
    with jax.transfer_guard_host_to_device("allow"):
        return {key: jax.make_array_from_process_local_data(sharding, array) for key, array in batch.items()}


def gathered(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process can fetch whole; nothing is waited for."""
    return _gather(mesh)(tree) if jax.process_count() > 1 else tree


@functools.cache
def _gather(mesh: Mesh) -> jax.stages.Wrapped:
    # One function a mesh: JAX compiles each new function anew, be its code the same.
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def total(number: int) -> int:
    """The sum of a number below 2^32 over all processes."""
    if jax.process_count() == 1:
        return number
    with jax.transfer_guard("allow"):  # the training loop's is there for its steps
        return int(multihost_utils.process_allgather(np.asarray(number, np.uint32)).sum(dtype=np.uint64))


def agree(ok: bool) -> bool:
    """Whether `ok` is true on every process."""
    if jax.process_count() == 1:
        return ok
    return bool(multihost_utils.process_allgather(np.asarray(ok)).all())


def wait_for_all(what: str) -> None:
    """Return when every process has come here; `what` names the place.

    The processes wait at their coordinator, not in a collective: one that compiles while another found its
    program in the cache may be later than a collective waits.
    """
    if jax.process_count() > 1:
        barrier = multihost.get_barrier_sync_fn()
        barrier(key=f"{what} ({next(_waits)})", timeout_ms=1000 * WAIT_SECONDS)


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """End a process that has failed with this exit code.

    At its end JAX waits for minutes until all processes have come to theirs. The others may wait for this one
    in the middle of the run: it stays for LEAVE_SECONDS, or not at all where `at_once`, and goes. That it is
    gone is known by its heartbeat.

    `at_once` is without Python's own end too, alone as well: where Ctrl-C has stopped the compiler, that was
    seen to end in a segmentation fault.
    """
    if not at_once and not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if not at_once:
        end = threading.Thread(target=jax.distributed.shutdown, daemon=True)
        end.start()
        end.join(LEAVE_SECONDS)
    os._exit(code)

"""Runs of one or many processes: how they find each other, their device mesh, and how arrays are placed."""

import functools
import itertools
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import jax
import joblib
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from orbax.checkpoint import multihost

from rann_jax.errors import ConfigError

DATA, MODEL = "data", "model"
HEARTBEAT_SECONDS = 100  # JAX's default
# (ours) For a process that compiles, and for hosts that each prepare all of their data; dead processes are
# detected by their missing heartbeat.
WAIT_SECONDS = 3600
PREPARE_SECONDS = 7 * 24 * 3600
# One core reads 438 int16 clips of 8 s a second, or 163 of FLAC, and an H100 trains a RANN-8x4-6 on 715
# (docs/performance.md): two threads would do for int16, and between four and five for FLAC.
THREADS_PER_DEVICE = 4
LEAST_AHEAD = 8  # (ours) batches
LEAVE_SECONDS = 5  # (ours) time for the others to fail too, each with its own message
# In JAX's message about a wait that took too long, and what to do then.
LATE = "DEADLINE_EXCEEDED"
COME = (
    "another process of this run is alive but slow, or hangs: see what it says, then run the same command "
    "again"
)
_waits = itertools.count()  # every wait needs a unique name


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Join the processes of this run; must be called before anything is computed.

    Without arguments, JAX detects a TPU slice, a Slurm step, an Open MPI job or a Kubernetes job; anything
    else is a single process. `num_processes=1` forces a single process everywhere.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: number of processes.
      process_id: index of this process, from 0.
      heartbeat_seconds: a process that is silent for this long is considered dead, and the others stop.

    Raises:
      ConfigError: only some of the first three are given, or the other processes could not be reached.
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
            # No detection if all is given: in a Slurm step JAX would otherwise pick the devices.
            cluster_detection_method="deactivate" if explicit else None,
            heartbeat_timeout_seconds=heartbeat_seconds,
        )
    except ValueError as error:
        # JAX's message when it detects no cluster: then this is the only process.
        if explicit or "coordinator_address should be defined" not in str(error):
            raise ConfigError(f"--coordinator, --num_processes, --process_id: {error}") from error
    except RuntimeError as error:
        raise ConfigError(f"the other processes of this run could not be joined: {error}") from error


def is_primary() -> bool:
    """Return whether this is the process that writes what the run writes once, such as metrics."""
    return jax.process_index() == 0


def data_mesh(model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of all devices of all processes: one axis `data`, or `data` and `model` if `model` > 1.

    Args:
      model: number of devices that shard an array; neighbours, in one process where possible.
      devices: devices to compile for, instead of this run's.

    Raises:
      ConfigError: the number of devices is not a multiple of `model`.
    """
    # Devices are ordered by process, because batches are split in that order. So the rows of a batch are the
    # same for every number of processes, whatever the topology of the devices.
    chosen = jax.devices() if devices is None else devices
    ordered = np.array(sorted(chosen, key=lambda device: (device.process_index, device.id)))
    if model < 1 or len(ordered) % model:
        raise ConfigError(
            f"config.sharding.model={model} does not divide the {len(ordered)} devices: use a divisor"
        )
    # Auto, because the default explicit axes refuse random permutations inside jit.
    if model == 1:
        return Mesh(ordered, (DATA,), axis_types=(AxisType.Auto,))
    return Mesh(ordered.reshape(-1, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding under which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Return the sharding that divides the first axis among all devices of the mesh."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def check_batch_size(key: str, batch_size: int, mesh: Mesh, *, parts: int = 1) -> None:
    """Raise ConfigError unless each of the `parts` parts of a batch can be split evenly over the devices."""
    if batch_size < 1 or parts < 1 or batch_size % (mesh.size * parts):
        in_parts = f" in config.accumulate={parts} parts" if parts != 1 else ""
        raise ConfigError(
            f"config.{key}={batch_size} cannot be split evenly over {mesh.size} devices{in_parts}: use a "
            f"multiple of {mesh.size * max(parts, 1)}"
        )


def check_parts(config: ConfigDict, mesh: Mesh) -> None:
    """Raise ConfigError unless devices, accumulation parts and BatchNorm groups divide the batch evenly."""
    accumulate, groups = config.accumulate, config.batch_norm_groups
    check_batch_size("batch_size", config.batch_size, mesh, parts=accumulate)
    if groups < 1 or config.batch_size % (accumulate * groups):
        raise ConfigError(
            f"config.batch_norm_groups={groups} does not divide the {config.batch_size // accumulate} clips "
            "that are computed at once: use a divisor"
        )


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's part (local_B, ...) of a global batch on its devices."""
    sharding = split_batch(mesh)
    # This transfer is intended; with several processes the training loop's guard would refuse it.
    with jax.transfer_guard_host_to_device("allow"):
        return {key: jax.make_array_from_process_local_data(sharding, array) for key, array in batch.items()}


def reading(loader: Mapping[str, int | None]) -> dict[str, int]:
    """Return config.loader, with the defaults of this process where it has None.

    By default there are THREADS_PER_DEVICE threads for each device of the process, but at most one per core.
    No more threads read than there are batches to read ahead, hence at least as many.
    """
    threads = loader["num_threads"]
    if threads is None:
        threads = min(joblib.cpu_count(), THREADS_PER_DEVICE * jax.local_device_count())
    prefetch = loader["prefetch"]
    return {"num_threads": threads, "prefetch": max(LEAST_AHEAD, threads) if prefetch is None else prefetch}


def gathered(tree: Any, mesh: Mesh) -> Any:
    """Return arrays that every process can fetch whole, without waiting for them."""
    return _gather(mesh)(tree) if jax.process_count() > 1 else tree


@functools.cache
def _gather(mesh: Mesh) -> jax.stages.Wrapped:
    # One function per mesh: JAX compiles every new function object anew, even if the code is the same.
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))


def total(number: int) -> int:
    """Return the sum over all processes of a number below 2^32."""
    if jax.process_count() == 1:
        return number
    with jax.transfer_guard("allow"):  # the training loop's guard is meant for its steps only
        return int(multihost_utils.process_allgather(np.asarray(number, np.uint32)).sum(dtype=np.uint64))


def agree(ok: bool) -> bool:
    """Return whether `ok` is true on every process."""
    if jax.process_count() == 1:
        return ok
    with jax.transfer_guard("allow"):  # as in `total`
        return bool(multihost_utils.process_allgather(np.asarray(ok)).all())


def wait_for_all(what: str, *, seconds: int = WAIT_SECONDS) -> None:
    """Wait until every process gets here; `what` names the point that was reached.

    The processes wait at their coordinator, not in a collective, which would time out when one process has to
    compile a program that another found in its cache.

    Raises:
      ConfigError: a process that is alive did not come within `seconds`. So something hangs, which a launcher
        that restarts the run by itself (as it does on PreemptedError's code) would only run into again.
    """
    if jax.process_count() == 1:
        return
    barrier = multihost.get_barrier_sync_fn()
    try:
        barrier(key=f"{what} ({next(_waits)})", timeout_ms=1000 * seconds)
    except jax.errors.JaxRuntimeError as error:
        if LATE not in str(error):
            raise
        raise ConfigError(f"{what!r} did not hold for all processes within {seconds} s: {COME}") from error


def leave(code: int, *, at_once: bool = False) -> NoReturn:
    """End a process that has failed, with this exit code.

    On exit, JAX waits for minutes until all processes exit, while the others may wait for this one in the
    middle of the run. So this process stays for LEAVE_SECONDS only, or not at all if `at_once`. The others
    notice its end by the missing heartbeat.

    `at_once` also skips Python's own shutdown, even for a single process: after Ctrl-C had stopped the
    compiler, that shutdown was seen to end in a segmentation fault.
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


def leave_together(code: int) -> NoReturn:
    """End a process with this exit code, as all others of the run do; SIGTERM no longer changes the code.

    Python's shutdown would make SIGTERM fatal again some tenths of a second before the end of the process,
    and a launcher may send it as soon as the first process has ended.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(jax.errors.JaxRuntimeError):  # another process has failed
        jax.distributed.shutdown()  # waits for the others
    os._exit(code)

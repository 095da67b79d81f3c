"""Allow only one training run at a time in a workdir."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from input_pipeline.lock import LockedError, locked
from rann_jax import distributed
from rann_jax.errors import ConfigError


@contextlib.contextmanager
def training(workdir: Path) -> Iterator[None]:
    """Lock a workdir for the training of this run; all processes of the run must enter this context.

    The primary process holds the lock, `WORKDIR/.lock`, for all. However that process ends, the kernel frees
    the lock.

    Raises:
      ConfigError: another run trains there; raised on every process of this one.
    """
    with contextlib.ExitStack() as stack:
        free = True
        if distributed.is_primary():
            try:
                stack.enter_context(locked(workdir, wait=False))
            except LockedError:
                free = False
        distributed.wait_for_all("the workdir is locked")
        if not distributed.agree(free):
            raise ConfigError(
                f"{workdir} is being trained by another process: wait until it ends, stop it, or use another "
                "--workdir"
            )
        yield

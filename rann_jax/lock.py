"""One training at a time in a workdir."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from input_pipeline.lock import LockedError, locked
from rann_jax import distributed
from rann_jax.errors import ConfigError


@contextlib.contextmanager
def training(workdir: Path) -> Iterator[None]:
    """Holds a workdir for the training of this run; all processes of the run enter it.

    The primary process holds it for all: `WORKDIR/.lock`, which the kernel frees however that process ends.

    Raises:
      ConfigError: another run trains there; on every process of this one.
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
                f"{workdir} is being trained by another process: wait for its end, stop it, or use another "
                "--workdir"
            )
        yield

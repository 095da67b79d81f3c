"""Record what the devices and the host do in some steps of training."""

from collections.abc import Callable
from pathlib import Path

import jax

from rann_jax.errors import ConfigError

FOLDER = "profile"
NO_STEPS = range(0)


def parse_steps(text: str) -> range:
    """Return the steps that START:STOP names, from 0 and without STOP, as in Python.

    Raises:
      ConfigError: it has another form, or names no step.
    """
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ConfigError(f"--profile={text}: give two numbers of steps START:STOP, such as 20:30")
    return range(int(start), int(stop))


class Trace:
    """JAX's profile of some steps, in the folder `profile` of a workdir, for XProf or ui.perfetto.dev.

    Args:
      workdir: the folder of the run.
      steps: consecutive steps, from 0.
    """

    def __init__(self, workdir: Path, steps: range):
        self._folder, self._steps = workdir / FOLDER, steps
        self._running = False

    def reach(self, step: int, settle: Callable[[], None]) -> None:
        """Begin or end before this step, if it is due; `settle` waits for the steps that were started."""
        if (step in self._steps) == self._running:
            return
        settle()
        if self._running:
            jax.profiler.stop_trace()
        else:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        self._running = not self._running

    def close(self) -> None:
        """End if it is running, because training ends before the last of the steps."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

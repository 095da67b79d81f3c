"""Who converts the shards of a data set: this process, several here, or an Apache Beam runner."""

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from input_pipeline.errors import DataError
from input_pipeline.shards import Recipe, Shard, write

# Ours: fewer clips are not worth the start of another worker, which imports TFDS.
_CLIPS_PER_WORKER = 400
_IDLE_SECONDS = 10  # after which a worker that has no more to do ends


def run_here(shards: Sequence[Shard], recipe: Recipe, *, workers: int, advance: Callable[[int], Any]) -> None:
    """Converts the shards on this machine.

    Args:
      shards: those that are not finished.
      recipe: how.
      workers: number of processes; 0 is one a core, fewer where the clips are few.
      advance: told of every finished shard how many clips it has.

    Raises:
      DataError: a worker was killed.
    """
    if not workers:
        clips = sum(len(shard.clips) for shard in shards)
        workers = min(joblib.cpu_count(), -(-clips // _CLIPS_PER_WORKER))
    if workers <= 1:
        for shard in shards:
            advance(write(shard, recipe))
        return
    # loky's workers do not import the user's script again, as those of multiprocessing do.
    parallel = joblib.Parallel(
        workers, batch_size=1, return_as="generator_unordered", idle_worker_timeout=_IDLE_SECONDS
    )
    jobs = (joblib.delayed(_write_for)(os.getpid(), shard, recipe) for shard in shards)
    try:
        for count in parallel(jobs):
            advance(count)
    except TerminatedWorkerError as error:
        raise DataError(
            "a worker process was killed, most likely for lack of memory: prepare again with a lower "
            "config.prepare.workers; finished shards are kept"
        ) from error


def _write_for(parent: int, shard: Shard, recipe: Recipe) -> int:
    """Writes a shard in a worker, which ends with the process that waits for it."""
    _follow(parent)
    return write(shard, recipe)


@functools.cache
def _follow(parent: int) -> None:
    """Ends this process soon after its parent was killed: loky's workers would wait for work a while."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_beam(shards: Sequence[Shard], recipe: Recipe, pipeline: Any) -> None:
    """Adds the conversion of the shards to a pipeline; its workers share the file system of this machine.

    One stage for all shards: TFDS' own shard pipeline has two for each of them, sixteen thousand for
    AudioSet, which is beyond what runners take as one job.
    """
    import apache_beam as beam

    (
        pipeline
        | "shards" >> beam.Create(list(shards))
        | "spread" >> beam.Reshuffle()
        | "convert" >> beam.Map(write, recipe)
    )

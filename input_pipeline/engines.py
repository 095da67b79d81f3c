"""Engines that convert the shards of a data set: one or several local processes, or an Apache Beam runner."""

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from typing import Any

import joblib
from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from input_pipeline.errors import DataError
from input_pipeline.shards import Recipe, Shard, clips_in, write

# (ours) For fewer clips, starting another worker, which imports TFDS, is not worth the time.
_CLIPS_PER_WORKER = 400


def run_here(shards: Sequence[Shard], recipe: Recipe, *, workers: int, advance: Callable[[int], Any]) -> None:
    """Convert the shards on this machine.

    Args:
      shards: the unfinished shards.
      recipe: how clips become records.
      workers: number of processes; 0 is one per core, or fewer if there are few clips.
      advance: called with the number of clips of every shard that finishes.

    Raises:
      DataError: a worker was killed.
    """
    if not workers:
        workers = min(joblib.cpu_count(), -(-clips_in(shards) // _CLIPS_PER_WORKER))
    workers = min(workers, len(shards))
    if workers <= 1:
        for shard in shards:
            advance(write(shard, recipe))
        return
    # Unlike multiprocessing's workers, loky's do not import the user's script again. This pool is not the one
    # that joblib.Parallel shares among calls, which was seen to lose work sent while its idle workers ended.
    pool = ProcessPoolExecutor(workers)
    try:
        jobs = [pool.submit(_write_for, os.getpid(), shard, recipe) for shard in shards]
        for job in as_completed(jobs):
            advance(job.result())
    except TerminatedWorkerError as error:
        raise DataError(
            "a worker process was killed, most likely for lack of memory: prepare again with a lower "
            "config.prepare.workers; finished shards are kept"
        ) from error
    finally:
        pool.shutdown(kill_workers=True)  # after an error, they would first finish the shards that wait


def _write_for(parent: int, shard: Shard, recipe: Recipe) -> int:
    """Write a shard in a worker process, which ends when its parent process ends."""
    _follow(parent)
    return write(shard, recipe)


@functools.cache
def _follow(parent: int) -> None:
    """End this process soon after its parent is killed; loky's workers would wait for work a while."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_beam(shards: Sequence[Shard], recipe: Recipe, pipeline: Any) -> None:
    """Add the conversion of the shards to a pipeline, whose workers must share this machine's file system.

    There is one set of stages for all shards. TFDS's own shard pipeline has two stages per shard, sixteen
    thousand for AudioSet, which is more than runners accept as one job.
    """
    import apache_beam as beam

    (
        pipeline
        | "shards" >> beam.Create(list(shards))
        | "spread" >> beam.Reshuffle()
        | "convert" >> beam.Map(write, recipe)
    )

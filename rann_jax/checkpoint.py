"""Save and restore a run; all that Orbax writes is written here, and read here and in `record`.

A checkpoint is one folder with two items: `state` (every array) and `record` (the position in the data, the
time spent, and the bundle that inference needs). Orbax writes it under a temporary name and renames it when
it is complete, so a killed run leaves no partial checkpoint; the next training removes what it left under
that name. The record has a checksum of the arrays, which reveals later damage by a disk or an interrupted
copy.
"""

import dataclasses
import errno
import functools
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rann_jax import distributed
from rann_jax.errors import ConfigError
from rann_jax.saved.checksum import checksum, is_shared, own_sum
from rann_jax.saved.read_failure import UnreadError, may_pass, reason, system_errors, unreadable
from rann_jax.saved.record import SCORES, Record, check_scores
from rann_jax.saved.workdir import CHECKPOINTS, replace_atomically
from rann_jax.state import TrainState

KEEP_LATEST = 2
LOOKS = 5  # (ours) attempts to list checkpoints while a training run removes some, at most once per save

# The devices share the writing of a replicated array: each cuts out its part with a compiled program. This
# pays off only for parts of at least this many bytes. A RANN has hundreds of arrays, most of them small: the
# first checkpoint of eight devices took ten seconds when all arrays were cut, 0.3 seconds when none was.
SMALLEST_PART = 2**20


class Checkpoints:
    """The checkpoints of a workdir: the latest two and the best.

    Args:
      workdir: the run's workdir; the checkpoints are in its `checkpoints/`.
      best_metric: name of the metric whose greatest value marks the best checkpoint; checkpoints saved
        without it are kept only while they are among the latest. None, for programs that only read, uses
        the run's own best_metric.

    Raises:
      ConfigError: the scores or the description of a checkpoint are damaged.
    """

    def __init__(self, workdir: Path, best_metric: str | None = None):
        def score(metrics: Mapping[str, float]) -> float:
            return metrics[self._best_metric]

        best = checkpoint_managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        latest = checkpoint_managers.LatestN(KEEP_LATEST)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
            best_fn=score,  # the policy keeps the best; `best_step` uses this function
            enable_async_checkpointing=True,
        )
        self._given_metric = best_metric
        check_scores(workdir, best_metric)
        logging.getLogger("absl").addFilter(_is_news)
        self._manager = _manager((workdir / CHECKPOINTS).absolute(), options)
        # Every process reads by itself: the manager's own restore ends in a collective, which a process with
        # damaged files would never reach.
        alone = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(state=_arrays(), record=ocp.JsonCheckpointHandler()),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=f"reader{alone}"
            ),
        )

    @functools.cached_property
    def _best_metric(self) -> str:
        return self._given_metric or self.newest_record().bundle["config"]["best_metric"]

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the checkpoint with the greatest best_metric, or None."""
        return self._manager.best_step()

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether the metrics have best_metric and it exceeds that of every checkpoint.

        All processes return the same.

        Raises:
          OSError: the previous save could not be written.
        """
        if self._best_metric not in metrics:
            return False
        with system_errors(self._manager.directory):
            self._manager.wait_until_finished()  # the score is read from its file
        before = -math.inf if self.best_step is None else self._score(self.best_step)
        return distributed.agree(metrics[self._best_metric] > before)

    def _score(self, step: int) -> float:
        """Return the score of a checkpoint that has one; OSError if it was removed since Orbax listed it."""
        scores = self._manager.metrics(step)
        if scores is None:
            path = self._manager.directory / str(step) / SCORES
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return scores[self._best_metric]

    def save(
        self,
        step: int,
        state: TrainState,
        record: Record,
        metrics: Mapping[str, float],
        *,
        only_best: bool = False,
    ) -> None:
        """Start saving; arrays are copied before this returns, files are written in the background.

        The metrics are saved only if they make this the best checkpoint: their score must exceed all before,
        so the first of equal scores stays the best. With `only_best`, nothing is saved unless it is the best.
        If a checkpoint of the same state was saved before its evaluation, only its record and metrics change.

        Raises:
          OSError: this save, or the previous one, could not be written.
        """
        best = self.is_best(metrics)
        if only_best and not best:
            return
        record = dataclasses.replace(record, checksum=checksum(state))
        if step in self._manager.all_steps():
            self._evaluated(step, record, metrics if best else None)
            return
        self._check_space(state)
        with system_errors(self._manager.directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    record=ocp.args.JsonSave(dataclasses.asdict(record)),
                ),
                metrics=dict(metrics) if best else None,
            )

    def _evaluated(self, step: int, record: Record, metrics: Mapping[str, float] | None) -> None:
        """Give a checkpoint its new record, and its metrics if it is the best, in Orbax's files.

        Orbax itself could only delete and save it anew, and a kill in between would lose the checkpoint. The
        record comes last: until then, the evaluation is due.
        """
        with system_errors(self._manager.directory):
            self._manager.wait_until_finished()
        folder = Path(self._manager.directory) / str(step)
        if distributed.is_primary():
            files = {SCORES: metrics, "record/metadata": dataclasses.asdict(record)}
            for name, content in files.items():
                if content is not None:
                    with replace_atomically(folder / name) as file:
                        json.dump(content, file)
        distributed.wait_for_all(f"checkpoint {step} has its scores")
        self._manager.reload()

    def _check_space(self, state: TrainState) -> None:
        """Raise OSError if the disk has too little space, before anything is written."""
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._manager.directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._manager.directory))

    def restore(self, like: Any, step: int | None = None) -> tuple[TrainState, Record]:
        """Return the state and record of a step, by default the latest.

        Args:
          like: a TrainState of arrays or ShapeDtypeStructs with the shapes and shardings to restore to.
          step: step of the checkpoint.

        Raises:
          ConfigError: there is no checkpoint, it is damaged or cannot be read now, or its state has another
            structure.
        """
        step = self.latest_step if step is None else step
        if step is None:
            raise self._none()
        try:
            return self._read(like, step)
        except UnreadError:
            raise
        except Exception as error:  # on damaged files the readers may raise anything
            raise unreadable(self._named(step), error) from error

    def _named(self, step: int) -> str:
        return f"{self._manager.directory}: checkpoint {step}"

    def _read(self, like: Any, step: int) -> tuple[TrainState, Record]:
        """Read a checkpoint; if processes share its arrays, all raise when one cannot read its part.

        Raises:
          UnreadError: a process failed for a reason that may pass; raised on all of them.
          Exception: the checkpoint is damaged.
        """
        shardings = ocp.checkpoint_utils.construct_restore_args(like)
        arrays = ocp.args.PyTreeRestore(like, restore_args=shardings)
        failure: Exception | None = None
        try:
            restored = self._restore(step, state=arrays, record=ocp.args.JsonRestore())
            record, number = Record.from_json(restored.record), own_sum(restored.state)
            if record.batches != step:
                raise ValueError(f"its record is of step {record.batches}")
        except Exception as error:  # on damaged files the readers may raise anything
            failure = error
        shared = is_shared(like)
        self._check_read(step, failure, shared)
        if record.checksum not in (None, distributed.total(number) % 2**32 if shared else number):
            raise ValueError("its arrays are not those that were saved: the checksum differs")
        return restored.state, record

    def _check_read(self, step: int, failure: Exception | None, shared: bool) -> None:
        """Raise unless this process, and all that share its arrays, could read a checkpoint."""
        everywhere = distributed.agree if shared else bool
        # All processes must get here before the next sum, which runs over all of them.
        if everywhere(failure is None):
            return
        # If one of them can perhaps read it later, none may go on from the checkpoint before.
        passes = may_pass(failure)
        if everywhere(not passes):
            raise failure or ValueError("another process cannot read its part")
        if failure and passes:
            raise unreadable(self._named(step), failure) from failure
        raise UnreadError(f"{self._named(step)} cannot be read now by another process, which says why")

    def _restore(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        self._manager.wait_until_finished()  # the checkpoint may still be being written
        return self._reader.restore(self._manager.directory / str(step), args=ocp.args.Composite(**items))

    def restore_newest(self, like: Any) -> tuple[TrainState, Record]:
        """Return the newest undamaged checkpoint, with a warning on stderr for each that is damaged.

        All processes that share the arrays of `like` return the same checkpoint.

        Raises:
          UnreadError: a newer one than that cannot be read now, but may be whole.
          ConfigError: there is none, or all are damaged.
        """
        if self.latest_step is None:
            raise self._none()
        reasons = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._read(like, step)
            except UnreadError:
                raise
            except Exception as error:
                reasons.append(f"checkpoint {step} cannot be read ({reason(error)})")
            print(f"warning: {self._manager.directory}: {reasons[-1]}", file=sys.stderr)
        raise ConfigError(f"{self._manager.directory}: {reasons[0]}, nor any before it: name another workdir")

    def restore_chosen(self, like: Any, which: str) -> tuple[TrainState, Record]:
        """Return what `restore_newest` does for "latest"; for "best", the best checkpoint.

        Raises:
          ConfigError: there is no such checkpoint, or it cannot be read.
        """
        if which == "latest" or self.latest_step is None:
            return self.restore_newest(like)
        if self.best_step is None:
            workdir = self._manager.directory.parent
            raise ConfigError(f"{workdir} holds no best checkpoint, as it was not evaluated: use the latest")
        return self.restore(like, self.best_step)

    def set_aside(self, after: int) -> None:
        """Move checkpoints later than step `after`, which are unreadable, to `damaged_checkpoints/`."""
        damaged = [step for step in self._manager.all_steps() if step > after]
        if not damaged:
            return
        if distributed.is_primary():
            folder = self._manager.directory.parent / "damaged_checkpoints"
            folder.mkdir(exist_ok=True)
            for step in damaged:
                number = len(list(folder.iterdir()))
                (self._manager.directory / str(step)).rename(folder / f"{step}-{number}")
        distributed.wait_for_all("damaged checkpoints are set aside")
        self._manager.reload()

    def remove_unfinished(self) -> None:
        """Remove what killed runs left of checkpoints that they were writing.

        Only the primary process of a training that holds the workdir's lock may call this, before its first
        step: no process saves before all have taken that step.
        """
        for left_over in Path(self._manager.directory).glob(f"*{ocp.path.atomicity.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(left_over)

    def record(self, step: int) -> Record:
        """Return the record of a step's checkpoint, without reading the arrays.

        Raises:
          ConfigError: it is damaged, or another version of this program wrote it.
        """
        try:
            return Record.from_json(self._restore(step, record=ocp.args.JsonRestore()).record)
        except Exception as error:
            raise unreadable(f"{self._manager.directory}/{step}/record", error) from error

    def newest_record(self) -> Record:
        """Return the newest record that can be read; every record of a run has its config and labels.

        Raises:
          ConfigError: none can be read.
        """
        failures = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self.record(step)
            except ConfigError as error:
                failures.append(error)
        raise failures[0] if failures else self._none()

    def _none(self) -> ConfigError:
        workdir = self._manager.directory.parent
        return ConfigError(f"{workdir} holds no complete checkpoint: train it first")

    def close(self) -> None:
        """Wait for the save in progress, and close.

        Raises:
          OSError: the save could not be written.
        """
        self._reader.close()
        with system_errors(self._manager.directory):
            self._manager.close()


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    """Return a manager, trying again if a training run removes a checkpoint while Orbax lists them.

    Raises:
      ConfigError: what Orbax keeps beside the arrays of a checkpoint is damaged.
    """
    handlers = {"state": _arrays(), "record": ocp.JsonCheckpointHandler()}
    made = functools.partial(ocp.CheckpointManager, folder, options=options, item_handlers=handlers)
    try:
        if jax.process_count() == 1:  # several processes would have to try again together
            for _ in range(LOOKS - 1):
                with suppress(FileNotFoundError):
                    return made()
        return made()
    except (ValueError, TypeError) as error:
        raise unreadable(f"{folder}: the description of a checkpoint", error) from error


def _is_news(entry: logging.LogRecord) -> bool:
    """Return False for what Orbax logs but is no news.

    That is its warning about a save without metrics, since between evaluations there are none; and the
    tracebacks of errors, of which each thread logs one, hundreds of lines when the disk is full: the error is
    raised too.
    """
    raised = entry.exc_info and "orbax" in entry.pathname
    return not raised and "Requested `tracked_metric`" not in str(entry.msg)


def _arrays() -> ocp.PyTreeCheckpointHandler:
    """Return the handler that reads and writes a state; it handles JAX arrays only."""
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SMALLEST_PART)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)

"""The training loop. At every step, in this order: evaluate -> save -> take a batch -> step."""

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import jax
from grain import DatasetIterator
from jax.sharding import Mesh
from ml_collections import ConfigDict

from input_pipeline.prepared import Prepared
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.evaluate import SplitEvaluator, StoppedError, evaluate, save
from rann_jax.experiment import Experiment
from rann_jax.saved import environment
from rann_jax.saved import workdir as workdirs
from rann_jax.saved.record import Record
from rann_jax.state import TrainState
from rann_jax.training.compiled import compiled_step, training_mesh
from rann_jax.training.preemption import PreemptedError, Preemption, exiting
from rann_jax.training.pretrained import Source, begin
from rann_jax.training.start import batches_from, introduction, restore_or_create
from rann_jax.training.trace import NO_STEPS, Trace
from rann_jax.writers import METRICS, Interval, MetricWriter, Progress, read_metrics


def train(
    experiment: Experiment,
    prepared: Prepared,
    workdir: Path,
    *,
    source: Source | None = None,
    show_progress: bool = True,
    command: str = "",
    profile: range = NO_STEPS,
) -> dict[str, float]:
    """Train to config.total_steps, resuming from the workdir's latest checkpoint if there is one.

    If the start is refused, or fails before the first step, config.json and environment.json are not touched.

    Args:
      experiment: what to train.
      prepared: the data.
      workdir: where checkpoints, metrics and predictions go.
      source: the weights of config.init_from; used only if there is no checkpoint.
      show_progress: whether to show the progress bar and the overview on stderr.
      command: the command line, kept in environment.json.
      profile: the steps to trace, from 0; see `Trace`.

    Returns:
      The metrics of the last evaluation.

    Raises:
      DivergedError: the loss, or the state after a step, is not finite. Such a state is never saved.
      ConfigError: the devices cannot share a batch evenly, the checkpoint belongs to other data, or a file is
        damaged.
      DataError: the config names a split that the data does not have.
      PreemptedError: the run was told to stop and has saved.
    """
    config = experiment.config
    with _started(experiment, prepared, workdir, source, show_progress, command, profile) as run:
        for step in range(run.start, config.total_steps + 1):
            last = step == config.total_steps
            stops = run.preemption.reached(step)
            evaluates = last or step % config.eval_every == 0
            due = evaluates and (step > run.start or run.record.evaluation_due)
            scores: dict[str, float] | None = {}
            if due:
                run.interval.flush()
                scores = None if stops else run.evaluate(step)
                stops = scores is None
            saves = last or stops or step % config.save_every == 0
            if scores or (saves and step > run.start):
                run.save(step, scores or {}, evaluation_due=due and stops, only_best=not saves)
            if stops:
                raise _stopped(step)
            if not last:
                run.take(step)
        scores = scores or run.scores()  # the run may have been finished already
        if scores is None:
            raise _stopped(config.total_steps)
    save(run.evaluators, workdir)
    return scores


@dataclasses.dataclass
class _Run:
    """What the loop works with.

    Attributes:
      config: the run's.
      mesh: the devices.
      start: number of steps done before this process.
      began: when this process was ready to train, by `time.monotonic`, less the training time of earlier
        ones.
      state: the state after the steps so far.
      record: the record of the last checkpoint, or a fresh one.
      train_step: (state, batch) -> (state, metrics); None if no step is left.
      batches: the batches from `start` on.
      evaluators: those of the splits in config.eval.splits.
      preemption: says when to stop.
      checkpoints: the checkpoints of the workdir.
      writer: where rows of metrics go.
      progress: the progress bar.
      trace: records what happens in some of the steps.
    """

    config: ConfigDict
    mesh: Mesh
    start: int
    began: float
    state: TrainState
    record: Record
    train_step: jax.stages.Compiled | None
    batches: DatasetIterator
    evaluators: Sequence[SplitEvaluator]
    preemption: Preemption
    checkpoints: Checkpoints
    writer: MetricWriter
    progress: Progress
    trace: Trace

    def __post_init__(self) -> None:
        self.interval = Interval(
            self.writer, self.progress, self.start, self.config.batch_size, self.record.losses
        )

    def take(self, step: int) -> None:
        """Start the step with this number, from 0, and do not wait for it."""
        assert self.train_step is not None
        self.trace.reach(step, self.interval.settle)
        with self.interval.reading():
            local = next(self.batches)
        batch = distributed.place_batch(local, self.mesh)
        self.state, metrics = self.train_step(self.state, batch)
        self.interval.append(metrics)
        if (step + 1) % self.config.log_every == 0:
            self.interval.flush()

    def evaluate(self, step: int) -> dict[str, float] | None:
        """Return and write the scores after `step` steps, or return None if told to stop meanwhile."""
        with self.interval.paused():
            scores = self.scores()
        if scores:
            self.writer.write(step, scores | {"time/seconds": self._seconds})
            self.progress.say(step, scores)
        return scores

    def scores(self) -> dict[str, float] | None:
        """Return the scores of all evaluators, or None if told to stop meanwhile."""
        try:
            return evaluate(self.evaluators, self.state, lambda: self.preemption.told)
        except StoppedError:
            return None

    def save(self, step: int, scores: dict[str, float], *, evaluation_due: bool, only_best: bool) -> None:
        """Save the state after `step` steps; see `Checkpoints.save` and `Record`."""
        with self.interval.paused() as losses:
            self.record = dataclasses.replace(
                self.record,
                batches=step,
                seconds=self._seconds,
                losses=losses,
                evaluation_due=evaluation_due,
            )
            self.checkpoints.save(step, self.state, self.record, scores, only_best=only_best)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def _started(
    experiment: Experiment,
    prepared: Prepared,
    workdir: Path,
    source: Source | None,
    show_progress: bool,
    command: str,
    profile: range,
) -> Iterator[_Run]:
    """Check, restore or create, and compile; then yield the run, and close what it opened at the end.

    See `train` for arguments and errors.
    """
    config = experiment.config
    mesh = training_mesh(experiment)
    evaluators = [SplitEvaluator(experiment, prepared, name, mesh) for name in config.eval.splits]
    primary = distributed.is_primary()
    show_progress = show_progress and primary
    # All processes refuse a damaged metrics file, before anything is compiled.
    read_metrics(workdir / METRICS)
    with ExitStack() as stack:
        # To the end of the last save: being told to stop again does not interrupt it.
        preemption = stack.enter_context(Preemption())
        checkpoints = stack.enter_context(closing(Checkpoints(workdir, config.best_metric)))
        with exiting():
            beginning = begin(source, experiment, prepared.labels) if source else None
            state, record = restore_or_create(experiment, prepared, checkpoints, mesh, beginning)
            start = record.batches
            if show_progress:
                print(introduction(experiment, state, start, beginning), file=sys.stderr)
            batches = stack.enter_context(closing(batches_from(experiment, prepared, start)))
            train_step = compiled_step(experiment, mesh) if start < config.total_steps else None
            distributed.wait_for_all("the training step is compiled")
        if preemption.reached_before(start):
            raise _stopped(start)
        rows = MetricWriter(workdir, start, primary, evaluation_due=record.evaluation_due)
        writer = stack.enter_context(closing(rows))
        if primary:  # from here on the start can no longer be refused
            workdirs.save_config(workdir, config)
            environment.save(workdir, command)
            checkpoints.remove_unfinished()
        progress = stack.enter_context(closing(Progress(start, config.total_steps, show_progress)))
        trace = stack.enter_context(closing(Trace(workdir, profile if primary else NO_STEPS)))
        # Forbid implicit transfers between host and devices: they would stall every step.
        stack.enter_context(jax.transfer_guard("disallow"))
        yield _Run(
            config=config,
            mesh=mesh,
            start=start,
            began=time.monotonic() - record.seconds,
            state=state,
            record=record,
            train_step=train_step,
            batches=batches,
            evaluators=evaluators,
            preemption=preemption,
            checkpoints=checkpoints,
            writer=writer,
            progress=progress,
            trace=trace,
        )


def _stopped(step: int) -> PreemptedError:
    return PreemptedError(f"stopped at step {step}: run the same command again to resume")

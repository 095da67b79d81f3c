"""What a run reports while it trains: metrics.jsonl, TensorBoard, the progress bar, the overview."""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
from flax import traverse_util
from tqdm import tqdm

from rann_jax.errors import ConfigError, DivergedError
from rann_jax.saved.workdir import replace_atomically

METRICS = "metrics.jsonl"
MAX_BYTES = 1 << 27  # a million rows
MAX_STEP = 2**31 - 1  # the state counts in int32
WAITS_MUCH = 0.1  # (ours) share of waiting from which the progress bar shows it


class MetricWriter:
    """Appends rows to metrics.jsonl, and to TensorBoard if tensorboardX is installed.

    A row is one JSON object with `step` and named numbers; an undefined value is null. Values whose names
    begin with `time/` depend on the machine. All others are the same in every run of the same config, however
    often it was stopped and whenever it saved.

    Args:
      workdir: the run's workdir.
      resume_step: step at which training resumes. Rows of later steps, which a killed run wrote after its
        last checkpoint, are removed, because they will be written again.
      active: whether to write at all; only one of several processes does.
      evaluation_due: whether `resume_step` is yet to be evaluated; then its scores, which a killed run may
        have written, are removed too.
    """

    def __init__(self, workdir: Path, resume_step: int, active: bool = True, *, evaluation_due: bool = False):
        self._file: IO[str] | None = None
        self._tensorboard: Any = None
        if not active:
            return
        path = workdir / METRICS
        rows = read_metrics(path)
        before = [row for row in rows if row["step"] < resume_step]
        kept = [row for row in rows if row["step"] == resume_step]
        if evaluation_due:
            kept = [row for row in kept if _is_of_training(row)]
        with replace_atomically(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in before + kept)
        self._file = path.open("a")
        # TensorBoard cannot remove single rows: all of this step go, and those kept are drawn again.
        self._tensorboard = _tensorboard(workdir / "tensorboard", resume_step)
        for row in kept:
            self._draw(row)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row and flush it to the file."""
        if not self._file:
            return
        row = {"step": step} | {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._draw(row)

    def _draw(self, row: Mapping[str, Any]) -> None:
        if self._tensorboard:
            for name, value in row.items():
                if name != "step" and value is not None:  # tensorboardX warns of NaN and draws nothing
                    self._tensorboard.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Close the files."""
        if self._file:
            self._file.close()
        if self._tensorboard:
            self._tensorboard.close()


def _is_of_training(row: Mapping[str, Any]) -> bool:
    """Return whether a row has the losses of steps; the others have the scores of an evaluation."""
    return "train/loss" in row


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl as `MetricWriter` wrote them, or none if there is no such file.

    An incomplete last line, left by a killed run, is dropped.

    Raises:
      ConfigError: the file is damaged or something else.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path} is larger than {MAX_BYTES} bytes, so not the metrics of a run: move it away"
        )
    try:
        # Every complete row ends in a newline, so what follows the last newline is incomplete.
        for line in content.split(b"\n")[:-1]:
            rows.append(_checked(json.loads(line)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not the metrics of a run: line {len(rows) + 1}: {error}: repair it, or move it away"
        ) from error
    return rows


def _checked(row: Any) -> dict[str, Any]:
    """Return a row; raise ValueError unless `MetricWriter` could have written it."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or not 0 <= row["step"] <= MAX_STEP:
        raise ValueError("it is not an object with a step")
    for name, value in row.items():
        if value is None:
            continue
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"{name} is not a finite number")
    return row


def _tensorboard(folder: Path, first_step: int) -> Any:
    """Return a writer that replaces all rows from `first_step` on, or None without tensorboardX."""
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder), purge_step=first_step)


class Progress:
    """The progress bar on stderr: steps done, steps/s, time left, the last loss and clips/s."""

    def __init__(self, start: int, total: int, show: bool):
        self._bar = tqdm(
            initial=start, total=total, desc="train", unit=" steps", disable=not show, smoothing=0
        )

    def advance(self) -> None:
        """Advance the bar by one step."""
        self._bar.update()

    def report(self, loss: float, clips_per_second: float, waiting: float) -> None:
        """Show the mean loss, the speed and, if it matters, the share of waiting since the last report."""
        waits = f", {waiting:.0%} waiting for input" * (waiting >= WAITS_MUCH)
        self._bar.set_postfix_str(f"loss {loss:.4f}, {clips_per_second:.0f} clips/s{waits}")

    def say(self, step: int, scores: Mapping[str, float]) -> None:
        """Print the scores of an evaluation above the bar."""
        if not self._bar.disable:
            shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if isinstance(v, float))
            tqdm.write(f"step {step}: {shown}", file=sys.stderr)

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        self._bar.close()


class Interval:
    """The steps since the last row of metrics; their values stay on the device until `settle`.

    Clips per second count all the time that the steps took in this process, including reading the sound.
    Waiting for input counts as the time in which a batch was waited for, if the devices had finished the step
    before when it came: an upper bound of the time in which they had nothing to do for lack of input.

    Args:
      writer: where the rows go.
      progress: the progress bar.
      start: number of steps done before the first one here.
      batch_size: clips per step.
      losses: losses of steps up to `start` for which the interrupted run wrote no row.
    """

    def __init__(
        self,
        writer: MetricWriter,
        progress: Progress,
        start: int,
        batch_size: int,
        losses: Sequence[float] = (),
    ):
        self._writer, self._progress, self._batch_size = writer, progress, batch_size
        self._step = start
        self._losses = list(losses)
        self._pending: list[dict[str, jax.Array]] = []
        self._learning_rate = math.nan
        self._clips, self._seconds, self._waited = 0, 0.0, 0.0
        self._begin = time.monotonic()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Take the next batch inside."""
        begin = time.monotonic()
        yield
        last: Any = self._pending[-1]["loss"] if self._pending else None  # Any: the type lacks is_ready
        if last is None or last.is_ready():
            self._waited += time.monotonic() - begin

    def append(self, metrics: dict[str, jax.Array]) -> None:
        """Add the metrics of one step, without waiting for the device."""
        self._pending.append(metrics)
        self._progress.advance()

    @contextmanager
    def paused(self) -> Iterator[list[float]]:
        """`settle`, then yield the losses not yet in a row; time spent inside does not count as training."""
        self.settle()
        yield list(self._losses)
        self._begin = time.monotonic()

    def settle(self) -> None:
        """Wait for the pending steps and keep their losses for the next row.

        Raises:
          DivergedError: the loss of a pending step, or the state after it, is not finite.
        """
        rows = jax.device_get(self._pending)
        for row in rows:
            loss = float(row["loss"])
            _check_finite(self._step + 1, loss, bool(row["finite"]))
            self._step += 1
            self._losses.append(loss)
            self._learning_rate = float(row["learning_rate"])
        self._pending = []
        now = time.monotonic()
        self._clips += self._batch_size * len(rows)
        self._seconds += now - self._begin
        self._begin = now

    def flush(self) -> None:
        """Write one row with the mean loss of all steps since the last row.

        Raises:
          DivergedError: as for `settle`.
        """
        self.settle()
        if not self._clips:
            return
        loss = math.fsum(self._losses) / len(self._losses)
        clips_per_second, waiting = self._clips / self._seconds, self._waited / self._seconds
        self._writer.write(
            self._step,
            {
                "train/loss": loss,
                "train/learning_rate": self._learning_rate,
                "time/clips_per_second": clips_per_second,
                "time/waiting_for_input": waiting,
            },
        )
        self._progress.report(loss, clips_per_second, waiting)
        self._losses, self._clips, self._seconds, self._waited = [], 0, 0.0, 0.0


def _check_finite(step: int, loss: float, finite: bool) -> None:
    """Raise DivergedError if a step's loss, or the state after it, is not finite."""
    if not math.isfinite(loss):
        what = f"the loss of step {step} is {loss}"
    elif not finite:
        what = f"step {step}, with finite loss {loss:.4g}, left weights or statistics that are not finite"
    else:
        return
    raise DivergedError(
        f"{what}: lower config.optimizer.learning_rate or look for broken sound; the checkpoints before it "
        "are kept"
    )


def parameter_overview(params: Any) -> str:
    """Return a table of every parameter array (name, shape, type, size) and the total."""
    rows = [
        ("/".join(path), str(leaf.shape), str(leaf.dtype), leaf.size)
        for path, leaf in traverse_util.flatten_dict(params).items()
    ]
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:<{width}}  {shape:<18} {dtype} {size:>12,}" for name, shape, dtype, size in rows]
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    return "\n".join([*lines, f"{'total parameters':<{width}}  {'':<26} {total:>12,}"])

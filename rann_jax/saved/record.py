"""What a checkpoint holds beside its arrays."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rann_jax.errors import ConfigError
from rann_jax.saved.read_failure import reason, unreadable
from rann_jax.saved.workdir import CHECKPOINTS

SCORES = "metrics/metrics"  # in the folder of a checkpoint that was the best when it was saved
BUNDLE = {"config", "labels", "fingerprints"}


@dataclasses.dataclass(frozen=True)
class Record:
    """Where a run stands, and what its weights need to be used; plain JSON.

    Attributes:
      batches: number of training batches taken so far: the position in the data to resume from.
      seconds: training time so far in seconds, evaluation included, compilation of the step not.
      bundle: config, labels and data fingerprints: all that is needed to use the weights.
      checksum: checksum of the saved arrays; None in checkpoints of versions that did not write one.
      losses: losses of the steps that are in no row of metrics yet, so that a resumed run writes the same
        rows as an uninterrupted one.
      evaluation_due: whether the run was told to stop before it had evaluated this step, and so evaluates it
        when it resumes.
    """

    batches: int
    seconds: float
    bundle: dict[str, Any]
    checksum: int | None = None
    losses: list[float] = dataclasses.field(default_factory=list)
    evaluation_due: bool = False

    @classmethod
    def from_json(cls, saved: Any) -> "Record":
        """Return the record that was saved. On damaged or newer ones, this may raise nearly anything."""
        record = cls(**saved)
        if missing := BUNDLE - set(record.bundle):
            raise ValueError(f"its record lacks {', '.join(sorted(missing))}")
        if not all(isinstance(loss, float) for loss in record.losses):
            raise ValueError("its losses are not numbers")
        config, labels, fingerprints = (record.bundle[key] for key in ("config", "labels", "fingerprints"))
        if not (isinstance(config, dict) and isinstance(fingerprints, dict) and isinstance(labels, list)):
            raise ValueError("its config, labels or fingerprints are something else")
        if not all(isinstance(label, str) for label in labels):
            raise ValueError("its labels are not text")
        if type(record.batches) is not int or not 0 <= record.seconds < math.inf:
            raise ValueError("its batches or seconds are not numbers")
        return record

    @property
    def converted(self) -> bool:
        """Whether the weights were trained elsewhere, on data of which nothing is known."""
        return not self.bundle["fingerprints"]

    def changed(self, fingerprints: Mapping[str, str]) -> list[str]:
        """Return the names of the splits whose data differs from what the run was started with."""
        if self.converted:
            return []
        return [name for name, now in fingerprints.items() if self.bundle["fingerprints"].get(name) != now]


def data_fingerprints(workdir: Path) -> dict[str, str]:
    """Return the fingerprints of the data that a run was started with, by split; {} without a checkpoint.

    This reads one small file and, unlike Orbax, uses no device, so a program that starts runs in other
    processes leaves the devices to them.

    Raises:
      ConfigError: the newest checkpoint's record is damaged, or another version of this program wrote it.
    """
    folder = workdir / CHECKPOINTS
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if not steps:
        return {}
    path = folder / str(max(steps)) / "record" / "metadata"
    try:
        fingerprints = Record.from_json(json.loads(path.read_text())).bundle["fingerprints"]
        return {str(split): str(fingerprint) for split, fingerprint in fingerprints.items()}
    except Exception as error:  # on damaged files this may raise nearly anything
        raise unreadable(str(path), error) from error


def check_scores(workdir: Path, best_metric: str | None) -> None:
    """Check the scores of a workdir's checkpoints, which Orbax reads as soon as it lists them.

    Args:
      workdir: the run's workdir.
      best_metric: the metric that scores must have; None for any.

    Raises:
      ConfigError: some are damaged.
    """
    for folder in (workdir / CHECKPOINTS).glob("*"):
        path = folder / SCORES
        if not folder.name.isdecimal() or not path.exists():
            continue
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(scores, dict) or {type(score) for score in scores.values()} - {int, float}:
                raise ValueError("they are not numbers with names")
            if best_metric not in (None, *scores):
                raise ValueError(f"they lack {best_metric}")
        except FileNotFoundError:  # a training run has removed the checkpoint since
            continue
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path}: the scores of a checkpoint are damaged ({reason(error)}): copy the file again, or "
                f"delete the folder {path.parent}, after which that checkpoint is no longer the best"
            ) from error

"""predictions/SPLIT.npz: a model's probabilities for every clip of a split, and how they came about.

Files of other programs are read too; see `load`.
"""

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from rann_jax.errors import ConfigError, one_line_reason
from rann_jax.saved import other_program
from rann_jax.saved.workdir import PREDICTIONS, replace_atomically
from rann_jax.tasks import MAX_CLASSES, SUM_TOLERANCE, TASKS

BEST = ".best"
POOLED = "pooled"  # in place of a split's name: the clips of all folds of a cross-validation
# Larger files are stored uncompressed, so that a small file cannot fill the memory. AudioSet's
# evaluation split needs 55 MB.
MAX_BYTES = 1 << 30
MAX_HEADER = 1 << 10  # of each array in the file; more than they take


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no single truth value, and no hash
class Predictions:
    """Class probabilities of n clips, and their targets.

    Attributes:
      ids: (n,) names of the clips, unique.
      targets: (n, C) uint8, multi-hot.
      probabilities: (n, C) float32.
      labels: (C,) class names.
      task: "classification" or "tagging".
      fingerprint: fingerprint of the clips and their labels; equal exactly if those are. Empty for another
        program's.
      step: number of training steps of the weights; 0 for another program's.
      max_crops: config.eval.max_crops that the clips were scored with; None if that is not known, as in files
        of earlier versions and for pooled folds.
    """

    ids: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    task: str
    fingerprint: str = ""
    step: int = 0
    max_crops: int | None = None

    def save(self, workdir: Path, split: str) -> Path:
        """Write predictions/SPLIT.npz; every array loads with allow_pickle=False."""
        path = path_of(workdir, split)
        arrays: dict[str, Any] = {
            "ids": np.asarray(self.ids, np.str_),
            "targets": self.targets.astype(np.uint8),
            "probabilities": self.probabilities.astype(np.float32),
            "labels": np.asarray(self.labels, np.str_),
            "task": np.str_(self.task),
        }
        if self.fingerprint:
            arrays |= {"fingerprint": np.str_(self.fingerprint), "step": np.int64(self.step)}
        if self.max_crops is not None:
            arrays["max_crops"] = np.int64(self.max_crops)
        compress = sum(array.nbytes + MAX_HEADER for array in arrays.values()) <= MAX_BYTES
        with replace_atomically(path, "wb") as file:
            write = np.savez_compressed if compress else np.savez
            write(file, **arrays)
        return path


def path_of(workdir: Path, split: str) -> Path:
    """Return where a workdir keeps the predictions of a split."""
    return workdir / PREDICTIONS / f"{split}.npz"


def best(split: str) -> str:
    """Return the name under which the best checkpoint's predictions of a split are kept."""
    return f"{split}{BEST}"


def scored_split(name: str) -> str:
    """Return the split whose clips the predictions of a name are of.

    >>> scored_split(best("valid")), scored_split("valid")
    ('valid', 'valid')
    """
    return name.removesuffix(BEST)


def splits(workdir: Path) -> list[str]:
    """Return the splits with predictions of the latest checkpoint; a split's name has no dot."""
    names = (path.stem for path in (workdir / PREDICTIONS).glob("*.npz"))
    return sorted(name for name in names if "." not in name)


def load(workdir: Path, split: str) -> Predictions:
    """Return the predictions of a split in a workdir. The file is not trusted: its content is checked.

    A file with a fingerprint, step or max_crops is of a run and must be what `Predictions.save` writes.
    Another program's needs only ids, targets, probabilities and labels; ids and labels may also be bytes or
    whole numbers, targets and probabilities any real numbers. Its `task` may be missing if
    `other_program.task_of` can tell it.

    Raises:
      ConfigError: the file is missing, or is neither.
    """
    path = path_of(workdir, split)
    try:
        arrays = _read(path)
        of_run = not _OF_RUN.isdisjoint(arrays)
        arrays = arrays if of_run else other_program.typed(arrays)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: train {workdir}, or score it with --mode=eval and "
            f"--config.eval.splits={split}"
        ) from None
    except Exception as error:  # on damaged or hostile files the readers may raise nearly anything
        raise ConfigError(f"{path} cannot be read: {one_line_reason(error)}") from error
    if wrong := _wrong(arrays, _REQUIRED if of_run else other_program.KEYS):
        mend = "score the run again with --mode=eval" if of_run else other_program.MEND
        raise ConfigError(f"{path}: {wrong}: {mend}")
    try:
        return _from_arrays(arrays)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def in_order(predicted: Predictions, ids: np.ndarray) -> Predictions:
    """Return predictions with their clips in the order of `ids` (n,); unchanged if their clips differ."""
    mine, theirs = np.argsort(predicted.ids), np.argsort(ids)
    if np.array_equal(predicted.ids, ids) or not np.array_equal(predicted.ids[mine], ids[theirs]):
        return predicted
    order = np.empty_like(mine)
    order[theirs] = mine
    rows = {name: getattr(predicted, name)[order] for name in ("ids", "targets", "probabilities")}
    return dataclasses.replace(predicted, **rows)


def _read(path: Path) -> dict[str, np.ndarray]:
    _check_size(path)
    with np.load(path, allow_pickle=False) as file:
        return {
            field.name: file[field.name] for field in dataclasses.fields(Predictions) if field.name in file
        }


def _from_arrays(arrays: dict[str, np.ndarray]) -> Predictions:
    """Return predictions; raise ValueError if their task cannot be inferred."""
    values: dict[str, Any] = dict(arrays)
    if "task" not in values:
        values["task"] = other_program.task_of(*(arrays[k] for k in ("ids", "targets", "probabilities")))
    kinds = {"U": str, "i": int}
    return Predictions(**values | {k: kinds[_SCALARS[k]](values[k]) for k in _SCALARS if k in values})


def _check_size(path: Path) -> None:
    """Raise ValueError unless the arrays are as long as their headers say, before anything is allocated."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(MAX_BYTES, path.stat().st_size):
            raise ValueError(f"its arrays take more than {MAX_BYTES} bytes, and more than the file")
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(version)
                if read is None:
                    raise ValueError(f"{member.filename} has an unknown header")
                shape, _, dtype = read(file)
                if dtype.hasobject:
                    raise ValueError(f"{member.filename} holds Python objects: write np.asarray(names, str)")
                # Names without a character take no bytes, so a few bytes could declare any number of them.
                named = dtype.itemsize or math.prod(shape) <= 1
                if not named or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} is not as long as it says")


def _wrong(arrays: dict[str, np.ndarray], required: set[str]) -> str | None:
    """Return what is wrong with the arrays of a file, or None."""
    if lacking := sorted(required - arrays.keys()):
        return f"{' and '.join(lacking)} missing"
    ids, targets, probabilities, labels = (arrays[k] for k in ("ids", "targets", "probabilities", "labels"))
    wrong = None
    if any(arrays[k].ndim or arrays[k].dtype.kind != _SCALARS[k] for k in _SCALARS if k in arrays):
        wrong = f"{', '.join(_SCALARS)}: one is not a single value"
    elif "task" in arrays and str(arrays["task"]) not in TASKS:
        wrong = f"task is not one of {', '.join(TASKS)}"
    elif ids.dtype.kind != "U" or labels.dtype.kind != "U" or ids.ndim != 1 or labels.ndim != 1:
        wrong = "ids and labels are not lists of names"
    elif len(labels) > MAX_CLASSES:
        wrong = f"{len(labels)} classes are more than {MAX_CLASSES}"
    elif targets.shape != (len(ids), len(labels)) or 0 in targets.shape:
        wrong = f"targets are {targets.shape} for {len(ids)} clips and {len(labels)} labels"
    elif probabilities.shape != targets.shape:
        wrong = f"probabilities are {probabilities.shape}, not {targets.shape} as the targets"
    elif probabilities.dtype != np.float32:
        wrong = "probabilities are not float32"
    elif targets.dtype != np.uint8 or targets.max() > 1:
        wrong = "targets are not 0 or 1"
    elif not ((probabilities >= 0) & (probabilities <= 1)).all():
        wrong = "a probability is not within [0, 1]"
    elif arrays.get("task") == "classification" and not _sum_to_one(probabilities):
        wrong = "probabilities of a clip do not sum to 1"
    elif len(np.unique(ids)) != len(ids):
        wrong = "a clip is listed twice"
    return wrong


def _sum_to_one(probabilities: np.ndarray) -> bool:
    return bool((np.abs(probabilities.sum(axis=1) - 1) <= SUM_TOLERANCE).all())


_SCALARS = {"fingerprint": "U", "task": "U", "step": "i", "max_crops": "i"}
_OF_RUN = {"fingerprint", "step", "max_crops"}  # other programs have none of these
_REQUIRED = other_program.KEYS | {"fingerprint", "task", "step"}  # files of earlier versions lack max_crops

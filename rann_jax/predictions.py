"""predictions/SPLIT.npz: a model's probabilities for every clip of a split, and how they came about."""

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from rann_jax.errors import ConfigError, one_line_reason
from rann_jax.tasks import MAX_CLASSES, TASKS
from rann_jax.workdir import PREDICTIONS, replace_atomically

BEST = ".best"
POOLED = "pooled"  # in place of a split's name: the clips of all folds of a cross-validation
# Larger files are stored uncompressed, so that a small file cannot fill the memory. AudioSet's
# evaluation split needs 55 MB.
MAX_BYTES = 1 << 30
MAX_HEADER = 1 << 10  # of each array in the file; more than they take


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Class probabilities of n clips, and their targets.

    Attributes:
      ids: (n,) names of the clips, unique.
      targets: (n, C) uint8, multi-hot.
      probabilities: (n, C) float32.
      labels: (C,) class names.
      fingerprint: fingerprint of the clips and their labels; equal exactly if those are.
      task: "classification" or "tagging".
      step: number of training steps of the weights.
      max_crops: config.eval.max_crops that the clips were scored with; None if that is not known, as in files
        of earlier versions and for pooled folds.
    """

    ids: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    fingerprint: str
    task: str
    step: int
    max_crops: int | None = None

    def save(self, workdir: Path, split: str) -> Path:
        """Write predictions/SPLIT.npz; every array loads with allow_pickle=False."""
        path = path_of(workdir, split)
        arrays: dict[str, Any] = {
            "ids": np.asarray(self.ids, np.str_),
            "targets": self.targets.astype(np.uint8),
            "probabilities": self.probabilities.astype(np.float32),
            "labels": np.asarray(self.labels, np.str_),
            "fingerprint": np.str_(self.fingerprint),
            "task": np.str_(self.task),
            "step": np.int64(self.step),
        }
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

    Raises:
      ConfigError: the file is missing, or not what `Predictions.save` writes.
    """
    path = path_of(workdir, split)
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            names = [field.name for field in dataclasses.fields(Predictions)]
            loaded = {name: arrays[name] for name in names if name in arrays or name not in _OPTIONAL}
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist: train {workdir}, or score it with --mode=eval and "
            f"--config.eval.splits={split}"
        ) from None
    except KeyError as error:
        raise ConfigError(f"{path}: {error.args[0]}: score the run again with --mode=eval") from None
    except Exception as error:  # on damaged or hostile files the readers may raise nearly anything
        raise ConfigError(f"{path} cannot be read: {one_line_reason(error)}") from error
    _check_arrays(path, loaded)
    kinds = {"U": str, "i": int}
    return Predictions(**loaded | {k: kinds[_SCALARS[k]](loaded[k]) for k in _SCALARS if k in loaded})


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
                if math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} is not as long as it says")


def _check_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    ids, targets, probabilities, labels = (arrays[k] for k in ("ids", "targets", "probabilities", "labels"))
    wrong = None
    if any(arrays[k].ndim or arrays[k].dtype.kind != _SCALARS[k] for k in _SCALARS if k in arrays):
        wrong = f"{', '.join(_SCALARS)}: one is not a single value"
    elif str(arrays["task"]) not in TASKS:
        wrong = f"task is not one of {', '.join(TASKS)}"
    elif ids.dtype.kind != "U" or labels.dtype.kind != "U" or ids.ndim != 1 or labels.ndim != 1:
        wrong = "ids and labels are not lists of names"
    elif len(labels) > MAX_CLASSES:
        wrong = f"{len(labels)} classes are more than {MAX_CLASSES}"
    elif targets.shape != (len(ids), len(labels)) or 0 in targets.shape:
        wrong = f"targets are {targets.shape} for {len(ids)} clips and {len(labels)} labels"
    elif probabilities.shape != targets.shape or probabilities.dtype != np.float32:
        wrong = "probabilities are not float32 of the shape of the targets"
    elif targets.dtype != np.uint8 or targets.max() > 1:
        wrong = "targets are not 0 or 1"
    elif not ((probabilities >= 0) & (probabilities <= 1)).all():
        wrong = "a probability is not within [0, 1]"
    elif arrays["task"] == "classification" and (np.abs(probabilities.sum(axis=1) - 1) > 0.01).any():
        wrong = "probabilities of a clip do not sum to 1"
    elif len(np.unique(ids)) != len(ids):
        wrong = "a clip is listed twice"
    if wrong:
        raise ConfigError(f"{path}: {wrong}: score the run again with --mode=eval")


_SCALARS = {"fingerprint": "U", "task": "U", "step": "i", "max_crops": "i"}
_OPTIONAL = ("max_crops",)

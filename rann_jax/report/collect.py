"""Reading of a workdir for the report; any file may be missing, and none is trusted."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rann_jax.errors import ConfigError
from rann_jax.report import tables
from rann_jax.saved import environment, predictions
from rann_jax.saved.predictions import Predictions
from rann_jax.saved.workdir import CONFIG_FILE, load_config
from rann_jax.writers import METRICS, read_metrics

LARGEST = 1e30  # value of a metric; beyond it axes overflow


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
      name: name shown in the report.
      config: config of the run.
      curves: metric -> (steps, values), both of finite numbers.
      environment: environment of its last launch; empty if not recorded.
      predictions: predictions by the name of the split.
    """

    name: str
    config: ConfigDict
    curves: dict[str, tuple[list[int], list[float]]]
    environment: dict[str, str]
    predictions: dict[str, Predictions]


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation.

    Attributes:
      features: rows of the feature table.
      fusion: rows of the fusion table; empty for a single feature.
      pooled: predictions of the pooled folds by feature.
      runs: feature -> its runs, one per fold.
      environment: environment of its last launch; empty if not recorded.
    """

    features: list[dict[str, Any]]
    fusion: list[dict[str, Any]]
    pooled: dict[str, Predictions]
    runs: dict[str, list[Run]]
    environment: dict[str, str]


def read(workdir: Path) -> Run | CrossValidation:
    """Read a workdir.

    Raises:
      ConfigError: neither a run nor a finished cross-validation, or a file of it is broken.
    """
    if (workdir / CONFIG_FILE).exists():
        return read_run(workdir, workdir.absolute().name)
    if (workdir / "report" / "features.csv").exists():
        return _read_cross_validation(workdir)
    raise ConfigError(
        f"{workdir} holds neither a run ({CONFIG_FILE}) nor a finished cross-validation "
        "(report/features.csv): name the --workdir of one"
    )


def read_run(workdir: Path, name: str) -> Run:
    """Read one run, finished or not.

    Raises:
      ConfigError: a file of it is broken.
    """
    return Run(
        name=name,
        config=load_config(workdir),
        curves=_curves(workdir / METRICS),
        environment=environment.load(workdir),
        predictions={split: predictions.load(workdir, split) for split in predictions.splits(workdir)},
    )


def _read_cross_validation(workdir: Path) -> CrossValidation:
    table = workdir / "report" / "features.csv"
    features = tables.read_csv(table, text=("feature",), numbers=("accuracy", "mAP"))
    names = [row["feature"] for row in features]
    folds = [name for name in features[0] if re.fullmatch(r"fold\d+", name)]
    unsafe = any(Path(name).name != name or name in ("", "..") for name in names)
    if unsafe or len(set(names)) < len(names) or not folds:
        raise ConfigError(f"{table} is not a table of features and folds: run rann_jax.crossval again")
    fusion = workdir / "report" / "fusion.csv"
    text = ("models", "rule", "weights")
    return CrossValidation(
        features=features,
        fusion=tables.read_csv(fusion, text=text, numbers=("accuracy", "mAP")) if len(names) > 1 else [],
        pooled={name: predictions.load(workdir / name, predictions.POOLED) for name in names},
        runs={n: [read_run(workdir / n / fold, f"{n}/{fold}") for fold in folds] for n in names},
        environment=environment.load(workdir),
    )


def _curves(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for row in read_metrics(path):
        for name, value in row.items():
            if name != "step" and value is not None and abs(value) < LARGEST:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(float(value))
    return curves

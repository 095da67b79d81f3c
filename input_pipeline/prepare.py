"""Prepares a data set for training, once: finds or downloads its files, decodes them and keeps the copy.

A copy is identified by everything it depends on (options, rate, storage, listing of the source files ...), so
a changed folder is prepared again.
"""

import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from input_pipeline import audio
from input_pipeline.datasets import REGISTRY, source
from input_pipeline.datasets.builder import (
    AudioBuilder,
    AudioConfig,
    manifest_path,
    twins_path,
    unlisted_path,
)
from input_pipeline.errors import DataError
from input_pipeline.generate import find_or_generate, quiet_tfds
from input_pipeline.manifest import check_shares
from input_pipeline.prepared import Prepared
from input_pipeline.sampling import split_names
from input_pipeline.storage import check_storage

DEFAULT_PREPARED_DIR = "~/.cache/rann_jax"


def prepare(
    name: str,
    *,
    data_dir: str = "",
    prepared_dir: str = "",
    sample_rate: int,
    max_seconds: float = audio.MAX_SECONDS,
    max_failed_share: float = 0.05,
    storage: str = "pcm",
    workers: int = 0,
    beam: str | None = None,
    splits: Mapping[str, str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Prepared:
    """Prepares a data set, or reuses the copy prepared earlier from the same files in the same way.

    Args:
      name: a name in `datasets.REGISTRY`.
      data_dir: folder of the source files; '' downloads them, if the data set can be downloaded.
      prepared_dir: folder of the prepared copies; '' is ~/.cache/rann_jax.
      sample_rate: stored rate, Hz.
      max_seconds: longer files are rejected.
      max_failed_share: the largest share of a split's files that may be rejected (0 to 1); above 0, a single
        file always may.
      storage: 'pcm' or 'flac', see `storage`.
      workers: number of processes that convert; 0 is one per core. The copy is the same for any number.
      beam: flags of an Apache Beam runner that converts instead, as in '--runner=FlinkRunner'; '' is Beam's
        default, the direct runner; None is no Beam. The runner's workers must see the folders under the same
        paths.
      splits: the splits of each use, as in `config.splits`, such as {'train': 'fold2+fold3'}. They are
        checked before anything is converted. If 'train' is one of the uses, stderr reports splits that are
        unused, and splits that another use shares with training.
      progress: whether to show a progress bar with rate and remaining time on stderr.
      **options: the data set's own options (its OPTIONS).

    Raises:
      DataError: the data cannot be used as given; the message names the key or file and the fix.
    """
    root, builder_class, config = plan(
        name,
        data_dir=data_dir,
        prepared_dir=prepared_dir,
        sample_rate=sample_rate,
        max_seconds=max_seconds,
        storage=storage,
        progress=progress,
        **options,
    )
    config.max_failed_share, config.workers, config.splits = max_failed_share, workers, splits or {}
    prepared = Prepared.open(name, find_or_generate(builder_class, root, config, beam, progress), sample_rate)
    _report_rejected(prepared, max_failed_share)
    _report_unlisted(prepared)
    _report_twins(prepared)
    _report_uses(prepared, config.splits)
    return prepared


def plan(
    name: str,
    *,
    data_dir: str = "",
    prepared_dir: str = "",
    sample_rate: int,
    max_seconds: float = audio.MAX_SECONDS,
    storage: str = "pcm",
    progress: bool = True,
    **options: Any,
) -> tuple[Path, type[AudioBuilder], AudioConfig]:
    """Return what `prepare` would use with these arguments: folder of all copies, builder, its config.

    Raises:
      DataError: as `prepare`.
    """
    builder_class = _find(name)
    check_storage(storage)
    if not 0 < max_seconds < float("inf"):
        raise DataError(f"config.prepare.max_seconds={max_seconds:g} must be a positive number of seconds")
    complete = _complete_options(name, builder_class, options)
    root = Path(prepared_dir or DEFAULT_PREPARED_DIR).expanduser().absolute()
    folder, files = _source_files(builder_class, data_dir, root, progress)
    listing = source.fingerprint(folder, files)
    identity = _identity(complete, sample_rate, max_seconds, storage, listing)
    config = AudioConfig(
        name=identity,
        source=folder,
        files=files,
        sample_rate=sample_rate,
        max_seconds=max_seconds,
        options=complete,
        storage=storage,
        staging=root / builder_class.name / identity / f"unfinished.{builder_class.VERSION}",
    )
    return root, builder_class, config


def find_prepared(
    name: str, split: str, fingerprint: str, *, sample_rate: int, prepared_dir: str = ""
) -> Prepared | None:
    """Finds an existing copy by its content; this needs no source files and prepares nothing.

    Args:
      name: a name in `datasets.REGISTRY`.
      split: a split, or several joined by '+'.
      fingerprint: fingerprint that this split must have.
      sample_rate: stored rate, Hz.
      prepared_dir: folder of the prepared copies; '' is ~/.cache/rann_jax.

    Returns:
      The copy, or None if there is no undamaged one.

    Raises:
      DataError: unknown data set.
    """
    builder_class = _find(name)
    root = Path(prepared_dir or DEFAULT_PREPARED_DIR).expanduser().absolute() / builder_class.name
    for folder in sorted(root.glob(f"*{sample_rate:d}hz_*/{builder_class.VERSION}")):
        # A copy made with other options may have other splits; damaged copies are skipped.
        with contextlib.suppress(DataError, OSError, ValueError, TypeError, KeyError):
            prepared = Prepared.open(name, folder, sample_rate)
            if prepared.fingerprint(split) == fingerprint:
                return prepared
    return None


class Survey(NamedTuple):
    """Classes and splits that a data set lists.

    Attributes:
      labels: class names.
      splits: names of the splits.
      splits_from: where those names come from, for messages.
      labels_of: for each split, the classes that its usable clips have.
      several_labels: whether any clip has more than one label.
      dealt: whether the clips are dealt into folds here, so that one file more can change every fold.
    """

    labels: tuple[str, ...]
    splits: tuple[str, ...]
    splits_from: str
    labels_of: Mapping[str, frozenset[str]]
    several_labels: bool
    dealt: bool


def survey(name: str, *, data_dir: str, **options: Any) -> Survey:
    """Return what `prepare` would find with these arguments; no sound is decoded and nothing is written.

    Raises:
      DataError: as `prepare`, for errors that show in file names and tables.
    """
    builder_class = _find(name)
    complete = _complete_options(name, builder_class, options)
    folder, files = _source_files(builder_class, data_dir, Path(DEFAULT_PREPARED_DIR).expanduser(), False)
    config = AudioConfig(name="survey", source=folder, files=files, options=complete)
    with quiet_tfds():
        builder = builder_class(data_dir=folder, config=config)
        labels_of = {
            split: frozenset(label for clip in clips if not clip.problem for label in clip.labels)
            for split, clips in builder.listing.items()
        }
        several = any(len(clip.labels) > 1 for clips in builder.listing.values() for clip in clips)
        labels, splits = tuple(builder.label_names()), tuple(builder.listing)
        return Survey(labels, splits, builder.splits_from, labels_of, several, builder.dealt)


def _find(name: str) -> type[AudioBuilder]:
    if name not in REGISTRY:
        raise DataError(
            f"config.dataset.name: unknown data set {name!r}: the data sets are {', '.join(sorted(REGISTRY))}"
        )
    return REGISTRY[name]


def _complete_options(
    name: str, builder_class: type[AudioBuilder], given: Mapping[str, Any]
) -> dict[str, Any]:
    known = builder_class.OPTIONS
    for key in given:
        if key not in known:
            takes = ", ".join(sorted(known)) or "no options"
            raise DataError(f"config.dataset.{key}: data set {name!r} has no such option: it takes {takes}")
        if type(given[key]) is not type(known[key]):
            wanted = type(known[key]).__name__
            raise DataError(f"config.dataset.{key}={given[key]!r} must be of type {wanted}")
    return {**known, **given}


def _source_files(
    builder_class: type[AudioBuilder], data_dir: str, root: Path, progress: bool
) -> tuple[Path, dict[str, source.Stamp]]:
    if not builder_class.NEEDS_SOURCE:
        return Path(), {}
    if data_dir:
        folder = Path(data_dir).expanduser().absolute()
    else:
        folder = builder_class.download(root / "downloads", progress=progress)
    return folder, source.scan(folder, builder_class.ALSO_READS)


def _identity(
    options: Mapping[str, Any], sample_rate: int, max_seconds: float, storage: str, listing: str
) -> str:
    """Return the name of a prepared copy: readable options and rate, then a hash of all it depends on."""
    depends = json.dumps([options, sample_rate, max_seconds, storage, listing], sort_keys=True)
    readable = "_".join(f"{key}-{value}" for key, value in sorted(options.items()) if value != "")
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", readable)[:60]
    digest = hashlib.sha256(depends.encode()).hexdigest()[:12]
    return "_".join(part for part in (readable, f"{sample_rate}hz", digest) if part)


def _report_rejected(prepared: Prepared, max_failed_share: float) -> None:
    """Prints a line to stderr for each split of which files were left out; DataError if too many were."""
    parts = {split: prepared.manifest(split) for split in prepared.splits}
    paths = {split: manifest_path(prepared.folder, split) for split in parts}
    check_shares(
        {split: (part.rejected, part.listed) for split, part in parts.items()}, paths, max_failed_share
    )
    for split, part in parts.items():
        if part.rejected:
            print(
                f"warning: {prepared.name}: {len(part.rejected)} of {part.listed} files of split {split!r} "
                f"were unusable and left out, listed in {paths[split]}",
                file=sys.stderr,
            )


def _report_unlisted(prepared: Prepared) -> None:
    """Prints one line to stderr if the folder holds sound that is in no split."""
    if unlisted := prepared.unlisted():
        print(
            f"note: {prepared.name}: {len(unlisted)} sounds of the folder are in no split and were left out; "
            f"the first is {unlisted[0].id!r}, listed in {unlisted_path(prepared.folder)}",
            file=sys.stderr,
        )


def _report_twins(prepared: Prepared) -> None:
    """Prints one line to stderr if sound is in two splits: a network could be tested on its training data."""
    if twins := prepared.twins():
        print(
            f"warning: {prepared.name}: {len(twins)} clips are byte for byte in another split too; the first "
            f"is {twins[0].id!r}, {twins[0].reason}; all are listed in {twins_path(prepared.folder)}: "
            "remove them from one split",
            file=sys.stderr,
        )


def _report_uses(prepared: Prepared, uses: Mapping[str, str]) -> None:
    """Prints a line to stderr if splits are unused, and one for every use that shares splits with training.

    Raises:
      DataError: a use names a split that does not exist.
    """
    used = {use: split_names(expression, prepared.splits) for use, expression in uses.items()}
    if "train" not in used:
        return
    if unused := [split for split in prepared.splits if not any(split in names for names in used.values())]:
        print(
            f"note: {prepared.name}: prepared but not used by config.splits: {', '.join(unused)}",
            file=sys.stderr,
        )
    for use, names in used.items():
        shared = [split for split in names if split in used["train"]]
        if use != "train" and shared:
            print(
                f"warning: config.splits.{use} shares {', '.join(shared)} with config.splits.train: its "
                "scores include training clips",
                file=sys.stderr,
            )

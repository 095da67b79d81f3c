"""What a preparation would use and make: the data set, its source files and the identity of the copy.

A copy is identified by everything it depends on (options, rate, storage, listing of the source files ...), so
a changed folder is prepared again.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from input_pipeline import audio, source
from input_pipeline.datasets import REGISTRY
from input_pipeline.datasets.builder import AudioBuilder, AudioConfig
from input_pipeline.datasets.source_files import SourceFiles
from input_pipeline.errors import DataError
from input_pipeline.storage import check_storage

_DEFAULT_ROOT = "~/.cache/rann_jax"


@dataclass(frozen=True)
class Plan:
    """A copy that can be prepared.

    Attributes:
      root: folder of all copies.
      builder_class: the data set.
      config: configuration of this copy.
    """

    root: Path
    builder_class: type[AudioBuilder]
    config: AudioConfig

    @property
    def parent(self) -> Path:
        """The folder of this copy, with a folder for each version of the data set, and unfinished work."""
        return self.root / self.builder_class.name / self.config.name


def plan(
    name: str,
    *,
    data_dir: str = "",
    prepared_dir: str = "",
    sample_rate: int,
    max_seconds: float = audio.MAX_SECONDS,
    max_failed_share: float = 0.05,
    storage: str = "pcm",
    workers: int = 0,
    splits: Mapping[str, str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Plan:
    """Return what `prepare` would do with these arguments, which it describes.

    Raises:
      DataError: as `prepare`.
    """
    check_storage(storage)
    if not 0 < max_seconds < float("inf"):
        raise DataError(f"config.prepare.max_seconds={max_seconds:g} must be a positive number of seconds")
    root = prepared_root(prepared_dir)
    builder_class, found = find_source(name, data_dir, root, progress, options)
    listing = source.fingerprint(found.source.folder, found.source.files)
    identity = _identity(found.options, sample_rate, max_seconds, storage, listing)
    config = AudioConfig(
        name=identity,
        source=found.source,
        sample_rate=sample_rate,
        max_seconds=max_seconds,
        options=found.options,
        storage=storage,
        staging=root / builder_class.name / identity / f"unfinished.{builder_class.VERSION}",
        max_failed_share=max_failed_share,
        workers=workers,
        splits=splits or {},
        progress=progress,
    )
    return Plan(root, builder_class, config)


def prepared_root(prepared_dir: str) -> Path:
    """Return the folder of all prepared copies; '' is ~/.cache/rann_jax."""
    return Path(prepared_dir or _DEFAULT_ROOT).expanduser().absolute()


def find_source(
    name: str, data_dir: str, root: Path, progress: bool, options: Mapping[str, Any]
) -> tuple[type[AudioBuilder], AudioConfig]:
    """Return a data set, and a config with only its options, completed, and its source files.

    Args:
      name: a name in `datasets.REGISTRY`.
      data_dir: folder of the source files; '' downloads them below `root`.
      root: folder of all prepared copies.
      progress: whether to show a progress bar of the download.
      options: the data set's own options.

    Raises:
      DataError: as `prepare`.
    """
    builder_class = data_set(name)
    complete = complete_options(name, builder_class, options)
    if not builder_class.NEEDS_SOURCE:
        return builder_class, AudioConfig(name=name, options=complete)
    if data_dir:
        folder = Path(data_dir).expanduser().absolute()
    else:
        folder = builder_class.download(root / "downloads", progress=progress)
    files = source.scan(folder, builder_class.ALSO_READS)
    return builder_class, AudioConfig(name=name, options=complete, source=SourceFiles(folder, files))


def data_set(name: str) -> type[AudioBuilder]:
    """Return the data set of a name in `datasets.REGISTRY`.

    Raises:
      DataError: there is none.
    """
    if name not in REGISTRY:
        raise DataError(
            f"config.dataset.name: unknown data set {name!r}: the data sets are {', '.join(sorted(REGISTRY))}"
        )
    return REGISTRY[name]


def complete_options(
    name: str, builder_class: type[AudioBuilder], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all options of a data set, of which some are given.

    Raises:
      DataError: it has no such option, or a value has the wrong type.
    """
    known = builder_class.OPTIONS
    for key in given:
        if key not in known:
            takes = ", ".join(sorted(known)) or "no options"
            raise DataError(f"config.dataset.{key}: data set {name!r} has no such option: it takes {takes}")
        if type(given[key]) is not type(known[key]):
            wanted = type(known[key]).__name__
            raise DataError(f"config.dataset.{key}={given[key]!r} must be of type {wanted}")
    return {**known, **given}


def _identity(
    options: Mapping[str, Any], sample_rate: int, max_seconds: float, storage: str, listing: str
) -> str:
    """Return the name of a prepared copy: readable options and rate, then a hash of all it depends on."""
    depends = json.dumps([options, sample_rate, max_seconds, storage, listing], sort_keys=True)
    readable = "_".join(f"{key}-{value}" for key, value in sorted(options.items()) if value != "")
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", readable)[:60]
    digest = hashlib.sha256(depends.encode()).hexdigest()[:12]
    return "_".join(part for part in (readable, f"{sample_rate}hz", digest) if part)

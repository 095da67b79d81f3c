"""Prepare a data set for training, once: find or download its files, decode them and keep the copy."""

import contextlib
from collections.abc import Mapping
from typing import Any

from input_pipeline import audio, notes
from input_pipeline.copies import named_copy, open_copy, record
from input_pipeline.generate import find_or_generate
from input_pipeline.plan import data_set, plan, prepared_root
from input_pipeline.prepared import Prepared


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
    """Prepare a data set, or reuse the copy prepared earlier from the same files in the same way.

    Args:
      name: a name in `datasets.REGISTRY`.
      data_dir: folder of the source files; '' downloads them, if the data set can be downloaded. Or a
        finished copy, wherever it was moved: it is used as it is, if it was made with the same arguments.
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
    if (folder := named_copy(data_dir)) is not None:
        prepared = open_copy(name, folder, options, sample_rate=sample_rate, max_seconds=max_seconds)
        notes.report(prepared, max_failed_share, splits or {})
        return prepared
    planned = plan(
        name,
        data_dir=data_dir,
        prepared_dir=prepared_dir,
        sample_rate=sample_rate,
        max_seconds=max_seconds,
        max_failed_share=max_failed_share,
        storage=storage,
        workers=workers,
        splits=splits,
        progress=progress,
        **options,
    )
    prepared = Prepared.open(name, find_or_generate(planned, beam), sample_rate)
    notes.report(prepared, max_failed_share, planned.config.splits)
    return prepared


def find_prepared(
    name: str, split: str, fingerprint: str, *, sample_rate: int, prepared_dir: str = "", data_dir: str = ""
) -> Prepared | None:
    """Find an existing copy by its content; this needs no source files and prepares nothing.

    Args:
      name: a name in `datasets.REGISTRY`.
      split: a split, or several joined by '+'.
      fingerprint: fingerprint that this split must have.
      sample_rate: stored rate, Hz.
      prepared_dir: folder of the prepared copies; '' is ~/.cache/rann_jax.
      data_dir: as for `prepare`; if it names a copy, this one is looked at first.

    Returns:
      The copy, or None if there is no undamaged one.

    Raises:
      DataError: unknown data set.
    """
    builder_class = data_set(name)
    copies = prepared_root(prepared_dir) / builder_class.name
    folders = sorted(copies.glob(f"*{sample_rate:d}hz_*/{builder_class.VERSION}"))
    if (named := named_copy(data_dir)) is not None:
        folders.insert(0, named)
    for folder in folders:
        # A copy made with other options may have other splits; damaged copies are skipped.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            prepared = Prepared.open(name, folder, sample_rate)
            same_rate = folder != named or record(folder)["sample_rate"] == sample_rate
            if same_rate and prepared.fingerprint(split) == fingerprint:
                return prepared
    return None

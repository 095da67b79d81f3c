"""Convert a data set's files with TFDS, only once even if several processes ask, and resume killed runs.

TFDS writes into a folder with a temporary name and renames it when complete. Shards that a killed preparation
has finished are kept in a folder next to it, and the next preparation continues from there.
"""

import contextlib
import errno
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.utils import tqdm_utils

from input_pipeline.errors import DataError
from input_pipeline.lock import locked
from input_pipeline.plan import Plan


def find_or_generate(plan: Plan, beam: str | None) -> Path:
    """Return the folder of the finished copy; make the copy now if there is none.

    Args:
      plan: the copy.
      beam: flags of a Beam runner, or None for no Beam; see `prepare`.

    Raises:
      DataError: the copy cannot be written, Beam is not installed, or the data cannot be used as given.
    """
    final = plan.parent / str(plan.builder_class.VERSION)
    if final.is_dir():
        return final
    try:
        with locked(plan.parent):
            if not final.is_dir():  # else another process finished it while this one waited
                _remove_unfinished(plan.parent)
                _generate(plan, _beam_config(beam))
                shutil.rmtree(plan.config.staging)
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError that contains the system's message.
        if isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise DataError(_refused(error, plan.root, plan.config.source.folder)) from error
    return final


def _refused(error: OSError | RuntimeError, root: Path, source: Path) -> str:
    """Return the message for a system error: a failed write, unless the error names a source file."""
    reason, file = getattr(error, "strerror", None) or error, getattr(error, "filename", None)
    if (
        isinstance(file, str | os.PathLike)
        and Path(file).is_relative_to(source)
        and not Path(file).is_relative_to(root)
    ):
        return f"cannot read {file}: {reason}: fix or remove it"
    return (
        f"cannot write the prepared copy to {root}: {reason}: free disk space or name another folder with "
        "--config.prepared_dir"
    )


def _remove_unfinished(parent: Path) -> None:
    """Remove what killed preparations left; the caller holds the lock, so none of it is in use."""
    for left_over in parent.glob("incomplete.*"):
        shutil.rmtree(left_over)


def _beam_config(flags: str | None) -> tfds.download.DownloadConfig:
    """Return the configuration that tells TFDS which Beam runner to use.

    Raises:
      DataError: Beam is not installed.
    """
    if flags is None:
        return tfds.download.DownloadConfig()
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise DataError('--beam needs Apache Beam: pip install -e ".[beam]"') from error
    return tfds.download.DownloadConfig(beam_options=PipelineOptions(shlex.split(flags)))


def _generate(plan: Plan, download_config: tfds.download.DownloadConfig) -> None:
    with quiet_tfds():
        builder = plan.builder_class(data_dir=plan.root, config=plan.config, file_format="array_record")
        builder.download_and_prepare(download_dir=plan.root / "downloads", download_config=download_config)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silence TFDS's bars and log lines about custom configurations, and restore both afterwards."""
    verbosity, shown = logging.get_verbosity(), tqdm_utils._active  # TFDS has no function that returns this
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(shown)
        logging.set_verbosity(verbosity)

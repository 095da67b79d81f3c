"""Converts a data set's files by TFDS, once, whoever asks for them meanwhile, and where a killed run stopped.

TFDS writes into a folder with a temporary name and renames it when whole. Shards that a killed preparation
has finished wait beside it, and the next one goes on from there.
"""

import contextlib
import errno
import functools
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.utils import tqdm_utils
from tqdm import tqdm

from input_pipeline.datasets.builder import AudioBuilder, AudioConfig
from input_pipeline.errors import DataError
from input_pipeline.lock import locked


def find_or_generate(
    builder_class: type[AudioBuilder], root: Path, config: AudioConfig, beam: str | None, progress: bool
) -> Path:
    """The folder of the finished copy, made now where there is none.

    Args:
      builder_class: the data set.
      root: the folder of all copies.
      config: of this copy.
      beam: flags of a Beam runner, or None for no Beam; see `prepare`.
      progress: whether to show a bar.

    Raises:
      DataError: the copy cannot be written, Beam is not installed, or the data cannot be used as given.
    """
    parent = root / builder_class.name / config.name
    final = parent / str(builder_class.VERSION)
    if final.is_dir():
        return final
    try:
        with locked(parent):
            if not final.is_dir():  # else another process finished it while this one waited
                _remove_unfinished(parent)
                _generate(builder_class, root, config, _beam_config(beam), progress)
                shutil.rmtree(config.staging)
    except (OSError, RuntimeError) as error:
        # array_record reports a full disk as a RuntimeError with the system's words in it.
        if isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise DataError(_refused(error, root, config.source)) from error
    return final


def _refused(error: OSError | RuntimeError, root: Path, source: Path) -> str:
    """What the system refused, which is writing unless the error names one of the source files."""
    reason, file = getattr(error, "strerror", None) or error, getattr(error, "filename", None)
    if (
        isinstance(file, str | os.PathLike)
        and Path(file).is_relative_to(source)
        and not Path(file).is_relative_to(root)
    ):
        return f"cannot read {file}: {reason}: mend or remove it"
    return (
        f"cannot write prepared data to {root}: {reason}: free the disk or name another folder with "
        "--config.prepared_dir"
    )


def _remove_unfinished(parent: Path) -> None:
    """Removes what killed preparations left; under the lock, so none of it is in use."""
    for left_over in parent.glob("incomplete.*"):
        shutil.rmtree(left_over)


def _beam_config(flags: str | None) -> tfds.download.DownloadConfig:
    """How TFDS is told of a runner.

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


def _generate(
    builder_class: type[AudioBuilder],
    root: Path,
    config: AudioConfig,
    download_config: tfds.download.DownloadConfig,
    progress: bool,
) -> None:
    with quiet_tfds():
        builder = builder_class(data_dir=root, config=config, file_format="array_record")
        total = sum(map(len, builder.listing.values()))
        with tqdm(
            total=total,
            desc=f"preparing {builder.name}",
            unit=" clips",
            mininterval=0.5,
            disable=not progress,
        ) as bar:
            config.begin, config.advance = functools.partial(_begin, bar), bar.update
            builder.download_and_prepare(download_dir=root / "downloads", download_config=download_config)


def _begin(bar: tqdm, finished: int) -> None:
    """Begins behind what is finished already, which counts for no rate."""
    bar.n = bar.last_print_n = bar.initial = finished
    bar.refresh()


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Silences TFDS' bars and log lines about custom configurations; its bars are then as they were."""
    verbosity, shown = logging.get_verbosity(), tqdm_utils._active  # no function of TFDS tells
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(shown)
        logging.set_verbosity(verbosity)

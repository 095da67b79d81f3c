"""Download and unpack an official archive: completely or not at all, and nothing outside its folder."""

import http.client
import shutil
import stat
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from input_pipeline.errors import DataError
from input_pipeline.lock import locked

_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 18


def fetch_zip(url: str, folder: Path, *, max_bytes: int, progress: bool) -> Path:
    """Download a zip archive and unpack it as `folder`; an existing folder is kept as it is.

    Args:
      url: address of the archive.
      folder: where its content goes; its parent holds the unfinished download.
      max_bytes: largest size accepted, both packed and unpacked.
      progress: whether to show a progress bar with rate and remaining time on stderr.

    Returns:
      The folder, or the only folder in it: archives of repositories wrap their content in one.

    Raises:
      DataError: no network, or an archive that is broken, too large or unsafe.
    """
    if not folder.is_dir():
        with locked(folder.parent):
            if not folder.is_dir():  # else another process finished it while this one waited
                _fetch(url, folder, max_bytes, progress)
    content = list(folder.iterdir())
    return content[0] if len(content) == 1 and content[0].is_dir() else folder


def _fetch(url: str, folder: Path, max_bytes: int, progress: bool) -> None:
    prefix = f"incomplete.{folder.name}."
    for left_over in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as unfinished:
        archive, unpacked = Path(unfinished, "archive.zip"), Path(unfinished, "unpacked")
        _download(url, archive, max_bytes, progress)
        _unpack(url, archive, unpacked, max_bytes)
        unpacked.rename(folder)


def _download(url: str, archive: Path, max_bytes: int, progress: bool) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
            archive.open("wb") as file,
        ):
            total = int(response.headers.get("Content-Length") or 0) or None
            bar = tqdm(
                total=total,
                desc=f"downloading {url}",
                unit="B",
                unit_scale=True,
                disable=not progress,
            )
            with bar:
                received = _copy(response, file, bar, max_bytes)
            if total and received != total:
                raise ValueError(f"only {received} of {total} bytes arrived")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(
            f"cannot download {url} ({error}): fetch and unpack it elsewhere, then name its folder "
            "with --config.data_dir"
        ) from error


def _copy(response: IO[bytes], file: IO[bytes], bar: tqdm, max_bytes: int) -> int:
    received = 0
    while chunk := response.read(_CHUNK_BYTES):
        received += len(chunk)
        if received > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes")
        file.write(chunk)
        bar.update(len(chunk))
    return received


def _unpack(url: str, archive: Path, target: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise DataError(f"{url} unpacks to more than {max_bytes} bytes: not unpacked")
            for member in members:
                _refuse_unsafe(url, member)
            for member in members:
                if PurePosixPath(member.filename).parts:  # './' is the folder itself; Python 3.12 refuses it
                    packed.extract(member, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{url} is not a complete zip archive ({error}): try again later") from error
    except OSError as error:
        raise DataError(
            f"cannot unpack {url} into {target.parent.parent}: {error.strerror or error}: free disk space or "
            "name another folder with --config.prepared_dir"
        ) from error


def _refuse_unsafe(url: str, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    drive = ":" in "".join(path.parts[:1])  # './' has no parts
    if not member.filename or path.is_absolute() or ".." in path.parts or drive or link:
        raise DataError(f"{url} holds the unsafe member {member.filename!r}: nothing was unpacked")

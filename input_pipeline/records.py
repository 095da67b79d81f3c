"""Random access to the records of any number of files, of which a bounded number is open at a time.

array_record's own data source keeps every file open that it has read from. AudioSet's two million clips are
in 8000 files, and a process may often open only 1024 (macOS: 256).
"""

import bisect
import collections
import contextlib
import itertools
import operator
import resource
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from array_record.python import array_record_module
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from input_pipeline.errors import DataError, shortened_reason

# As in array_record's data source, for random access: larger buffers would read records nobody asked for.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}

# What this process has open, the file opened first at the front: its records, and its index there.
_opened: collections.deque[tuple["weakref.ref[Records]", int]] = collections.deque()
_lock = threading.Lock()


class Records(Sequence[dict[str, Any]]):
    """The records of several files by index, in the order of the files; threads may share it.

    All Records of a process together keep files open up to half of its limit on open files; then they close
    the file that was opened first. On a local disk, opening it again takes less time than reading a clip of
    some seconds, but over a network it takes more. So if the files are too many for the limit, it is raised
    as far as the system allows.

    Args:
      files: which records of which files.
      decode: makes a record of its bytes.
    """

    def __init__(self, files: Sequence[FileInstruction], decode: Callable[[bytes], dict[str, Any]]):
        self._files, self._decode = files, decode
        self._ends = list(itertools.accumulate(file.take for file in files))
        self._readers: dict[int, Any] = {}
        _raise_limit(4 * len(files))  # for two such splits

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self._files, self._decode)  # another process opens the files itself

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Return the record of an index, or a list of the records of a slice.

        Raises:
          DataError: the file cannot be read, or is damaged there.
        """
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        try:
            index = range(len(self))[operator.index(index)]
        except IndexError:
            raise IndexError(f"there is no record {index}: there are {len(self)}") from None
        number = bisect.bisect_right(self._ends, index)
        file = self._files[number]
        first = self._ends[number] - file.take
        try:
            (record,) = self._reader(number).read([file.skip + index - first])
        except RuntimeError as error:  # array_record's for all failures, such as a checksum that differs
            raise DataError(
                f"record {file.skip + index - first} of {file.filename} cannot be read "
                f"({shortened_reason(error)}): if that stays, delete its folder, or copy it again"
            ) from error
        return self._decode(record)

    def _reader(self, number: int) -> Any:
        """Return the reader of a file; a thread that uses it keeps it open even if it is given up here."""
        reader = self._readers.get(number)
        if reader is None:
            # Not under the lock, so that threads open files at the same time.
            reader = array_record_module.ArrayRecordReader(self._files[number].filename, **_OPTIONS)
            with _lock:
                self._readers[number] = reader
                _opened.append((weakref.ref(self), number))
                _close_first()
        return reader


def _close_first() -> None:
    """Give up the files that were opened first, as long as there are too many; the caller holds the lock."""
    while len(_opened) > _limits()[0] // 2:
        of, number = _opened.popleft()
        records = of()
        if records is not None:  # else its readers are closed already
            records._readers.pop(number, None)


def _raise_limit(wanted: int) -> None:
    """Raise this process's limit on open files to `wanted`, or as far as the system allows."""
    soft, hard = _limits()
    if (allowed := min(wanted, hard)) > soft:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than its hard limit says
            unchanged = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, unchanged))


def _limits() -> tuple[int, int]:
    """Return the limit on this process's open files, and how far it may be raised."""
    soft, hard = (
        sys.maxsize if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    return soft, hard

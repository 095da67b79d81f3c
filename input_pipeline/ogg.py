"""Checks of Ogg files (RFC 3533): every page has a checksum, and decoders leave out pages that fail it.

What follows a left-out page then moves forward in time, or is decoded wrongly, and nothing tells.
"""

import zlib
from typing import BinaryIO

_HEADER_BYTES = 27
_CHECKSUM = slice(22, 26)
_END_OF_STREAM = 4
# Ogg's checksum is zlib's with all bits in the reverse order.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def damage(file: BinaryIO) -> str:
    """Return which page is damaged, as 'its page at byte 4000 is damaged'; '' if none is.

    Bytes behind the end of a stream that are no page, as a tag of another format, are no damage. Nor is a
    last page that is cut off, which `truncation` reports.

    Args:
      file: seekable, binary; all of it is read, a page at a time.
    """
    file.seek(0)
    start, ended = 0, False
    while header := file.read(_HEADER_BYTES):
        if not (header.startswith(b"OggS\0") or b"OggS\0".startswith(header)):
            return "" if ended else f"its page at byte {start} is damaged"
        segments = file.read(header[26]) if len(header) == _HEADER_BYTES else b""
        body = file.read(sum(segments))
        if len(header) < _HEADER_BYTES or len(segments) < header[26] or len(body) < sum(segments):
            return ""
        blank = header[: _CHECKSUM.start] + bytes(4) + header[_CHECKSUM.stop :]
        if checksum(blank + segments + body) != int.from_bytes(header[_CHECKSUM], "little"):
            return f"its page at byte {start} is damaged"
        start += len(header) + len(segments) + len(body)
        ended = bool(header[5] & _END_OF_STREAM)
    return ""


def checksum(page: bytes) -> int:
    """Return the checksum of a page in which the checksum's own bytes are zero."""
    register = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{register:032b}"[::-1], 2)

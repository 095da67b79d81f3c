"""Whether a sound file is as long as it says.

Decoders take what is there: a download that broke off after 3 of 10 s decodes without an error, and its
labels may belong to the 7 s that are lost. Where the container states a length, it is compared with the file.
Sources: the RIFF and AIFF-C specifications; RFC 3533 (Ogg); ISO 11172-3 and the Xing tag that LAME
documents (MP3). FLAC states its samples, which only decoding counts: see `audio.decode`.
"""

import io
import struct
from typing import BinaryIO

# Writers that cannot seek leave a length open: ffmpeg and RF64 write the greatest value, SoX 0x7ffff000.
_OPEN_LENGTH = 0x7FFF0000
_MAX_CHUNKS = 1000
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # of an Ogg page: header, segment table, segments
_END_OF_STREAM = 4
_SEARCHED_FOR_MP3_BYTES = 4096

_RATES = (44100, 48000, 32000)  # of MPEG-1, Hz; MPEG-2 has half, MPEG-2.5 a quarter
_KBITS_MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def truncation(file: BinaryIO) -> str:
    r"""What a file lacks of the length that it states, as 'its data has 500 of 1000 bytes'; '' is nothing.

    Files of kinds that state no length, or that state it as open, lack nothing; nor does what is no sound
    file, which decoding will tell.

    Args:
      file: seekable, binary; only headers, and the last page of Ogg, are read.

    >>> truncation(io.BytesIO(b"RIFF\xf0\0\0\0WAVEdata\xe4\0\0\0ab"))
    'its data has 2 of 228 bytes'
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    if magic[:4] in _CHUNKED and magic[8:] in _CHUNKED[magic[:4]]:
        return _chunks(file, size, big_endian=magic[:4] in (b"FORM", b"RIFX"))
    if magic[:4] == b"OggS":
        return _ogg(file, size)
    return _mp3(file, size, magic)


_CHUNKED = {
    b"RIFF": (b"WAVE",),
    b"RIFX": (b"WAVE",),
    b"RF64": (b"WAVE",),
    b"FORM": (b"AIFF", b"AIFC"),
}


def _chunks(file: BinaryIO, size: int, *, big_endian: bool) -> str:
    """WAV, RF64 and AIFF: the chunk of sound, and what is left of the file at it."""
    order = ">" if big_endian else "<"
    large = 0  # RF64 keeps lengths beyond 4 GB in a chunk of their own
    start = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        header = file.read(8)
        if len(header) < 8:
            return ""
        name, length = header[:4], struct.unpack(f"{order}I", header[4:])[0]
        start += 8
        if name == b"ds64" and len(sizes := file.read(16)) == 16:
            large = struct.unpack("<8xQ", sizes)[0]
        if name in (b"data", b"SSND"):
            stated = large if large and length == 0xFFFFFFFF else length
            there = size - start
            is_open = stated >= _OPEN_LENGTH and stated != large
            return "" if is_open or stated <= there else f"its data has {there} of {stated} bytes"
        start += length + length % 2
    return ""


def _ogg(file: BinaryIO, size: int) -> str:
    """Ogg: the last page is whole and marked as the end of its stream."""
    start = max(0, size - 2 * _MAX_PAGE_BYTES)
    file.seek(start)
    tail = file.read()
    page = tail.rfind(b"OggS\0")
    if page < 0 or len(tail) < page + 27:
        return "its last page is cut off"
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    if len(segments) < tail[page + 26] or len(tail) < page + 27 + len(segments) + sum(segments):
        return "its last page is cut off"
    return "" if tail[page + 5] & _END_OF_STREAM else "its last page is not the end of the stream"


def _mp3(file: BinaryIO, size: int, magic: bytes) -> str:
    """MP3: the bytes, or else the frames, that the tag in the first frame states."""
    start = 0
    if magic[:3] == b"ID3" and len(magic) > 9:
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(magic[6:10], (21, 14, 7, 0), strict=True)
        )
    file.seek(start)
    head = file.read(_SEARCHED_FOR_MP3_BYTES)
    first = next((i for i in range(len(head) - 4) if _frame_bytes(head[i : i + 4])), -1)
    if first < 0:
        return ""
    length = _frame_bytes(head[first : first + 4])
    frame = head[first : first + length]
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    if tag < 0 or len(frame) < tag + 16:
        return ""
    flags, one, two = struct.unpack(">3I", frame[tag + 4 : tag + 16])
    if flags & 2:
        stated = two if flags & 1 else one
        there = size - start - first
        return f"it has {there} of {stated} bytes" if there < stated else ""
    if flags & 1:
        # Some writers count the frame of the tag itself, so it counts here.
        there = _frames(file, start + first, size)
        return f"it has {there} of {one} frames" if there < one else ""
    return ""


def _frames(file: BinaryIO, start: int, size: int) -> int:
    """Whole MP3 frames from a position on, up to the first that is none."""
    count = 0
    while True:
        file.seek(start)
        length = _frame_bytes(file.read(4))
        if not length or start + length > size:
            return count
        start, count = start + length, count + 1


def _frame_bytes(header: bytes) -> int:
    """Length of the layer III frame with this 4-byte header; 0 where it is no such header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, kbits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    mpeg1 = version == 3
    table = _KBITS_MPEG1 if mpeg1 else _KBITS_MPEG2
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if mpeg1 else 72) * table[kbits - 1] * 1000 // hertz + (header[2] >> 1 & 1)

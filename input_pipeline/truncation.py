"""Detection of truncated sound files, which are shorter than they state.

Decoders accept what is there: a download that broke off after 3 of 10 s decodes without an error, and its
labels may belong to the 7 s that are lost. If the container states a length, it is compared with the file.
Sources: the RIFF and AIFF-C specifications; those of the Core Audio Format (Apple), Wave64 (Sony) and .snd or
.au (NeXT, Sun); RFC 3533 (Ogg); ISO 11172-3 and the Xing tag that LAME documents (MP3). FLAC states its
number of samples, which can only be checked by decoding: see `audio.stream`.
"""

import io
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

# Writers that cannot seek leave the length open: ffmpeg and RF64 write the greatest value, SoX 0x7ffff000.
_OPEN_LENGTH = 0x7FFF0000
_AU_OPEN = 0xFFFFFFFF
_MAX_CHUNKS = 1000
_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # of an Ogg page: header, segment table, segments
_END_OF_STREAM = 4
_SEARCHED_FOR_MP3_BYTES = 4096

_RATES = (44100, 48000, 32000)  # of MPEG-1, Hz; MPEG-2 has half, MPEG-2.5 a quarter
_KBITS_MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def truncation(file: BinaryIO) -> str:
    r"""Return what a file lacks of its stated length, as 'its data has 500 of 1000 bytes'; '' if nothing.

    Files that state no length, or leave it open, lack nothing. Nor do files that hold no sound: decoding will
    find those.

    Args:
      file: seekable, binary; only headers, and the last page of Ogg, are read.

    >>> truncation(io.BytesIO(b"RIFF\xf0\0\0\0WAVEdata\xe4\0\0\0ab"))
    'its data has 2 of 228 bytes'
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    for (beginning, form), layout in _CHUNKED.items():
        if magic.startswith(beginning) and magic.endswith(form):
            return _chunks(file, size, layout)
    if magic[:4] in _AU and len(magic) == 12:
        offset, stated = struct.unpack(f"{_AU[magic[:4]]}II", magic[4:])
        return "" if stated == _AU_OPEN else _compared(size - offset, stated)
    if magic[:4] == b"OggS":
        return _ogg(file, size)
    return _mp3(file, size, magic)


@dataclass(frozen=True)
class _Layout:
    """Layout of the chunks in a container.

    Attributes:
      header: struct format of a chunk's header, its name and length.
      sound: name of the chunk that holds the sound.
      start: position of the first chunk.
      alignment: multiple to which chunks are padded, bytes.
      counts_header: whether lengths include the header.
      open_from: stated lengths from this value on mean that the length is open.
    """

    header: str
    sound: bytes
    start: int = 12
    alignment: int = 2
    counts_header: bool = False
    open_from: int = _OPEN_LENGTH


_RIFF = _Layout("<4sI", b"data")
_AIFF = _Layout(">4sI", b"SSND")
_CAF = _Layout(">4sQ", b"data", start=8, alignment=1, open_from=1 << 62)
_W64_SOUND = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64 = _Layout("<16sQ", _W64_SOUND, start=40, alignment=8, counts_header=True, open_from=1 << 62)

# By the beginning and the end of a file's first twelve bytes.
_CHUNKED = {
    (b"RIFF", b"WAVE"): _RIFF,
    (b"RF64", b"WAVE"): _RIFF,
    (b"RIFX", b"WAVE"): replace(_RIFF, header=">4sI"),
    (b"FORM", b"AIFF"): _AIFF,
    (b"FORM", b"AIFC"): _AIFF,
    (b"caff", b""): _CAF,
    (b"riff", bytes.fromhex("2e91cf11a5d628db")): _W64,
}
_AU = {b".snd": ">", b"dns.": "<"}  # magic bytes and byte order


def _chunks(file: BinaryIO, size: int, layout: _Layout) -> str:
    """WAV, RF64, AIFF, CAF and W64: compare the length of the sound chunk with the rest of the file."""
    large = 0  # RF64 keeps lengths beyond 4 GB in a separate chunk
    start, header_bytes = layout.start, struct.calcsize(layout.header)
    for _ in range(_MAX_CHUNKS):
        if start + header_bytes > size:
            return ""
        file.seek(start)
        name, length = struct.unpack(layout.header, file.read(header_bytes))
        if layout.counts_header:
            length = max(0, length - header_bytes)
        start += header_bytes
        if name == b"ds64" and len(sizes := file.read(16)) == 16:
            large = struct.unpack("<8xQ", sizes)[0]
        if name == layout.sound:
            stated = large if large and length == 0xFFFFFFFF else length
            is_open = stated >= layout.open_from and stated != large
            return "" if is_open else _compared(size - start, stated)
        start += -(-length // layout.alignment) * layout.alignment
    return ""


def _compared(there: int, stated: int) -> str:
    return f"its data has {max(0, there)} of {stated} bytes" if there < stated else ""


def _ogg(file: BinaryIO, size: int) -> str:
    """Ogg: check that the last page is complete and marked as the end of its stream."""
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
    """MP3: check the bytes, or else the frames, that the tag in the first frame states."""
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
        # Some writers count the frame that holds the tag, so it is counted here too.
        there = _frames(file, start + first, size)
        return f"it has {there} of {one} frames" if there < one else ""
    return ""


def _frames(file: BinaryIO, start: int, size: int) -> int:
    """Return the number of complete MP3 frames from a position on, up to the first invalid one."""
    count = 0
    while True:
        file.seek(start)
        length = _frame_bytes(file.read(4))
        if not length or start + length > size:
            return count
        start, count = start + length, count + 1


def _frame_bytes(header: bytes) -> int:
    """Return the length of the layer III frame with this 4-byte header; 0 if it is not such a header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, kbits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    mpeg1 = version == 3
    table = _KBITS_MPEG1 if mpeg1 else _KBITS_MPEG2
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if mpeg1 else 72) * table[kbits - 1] * 1000 // hertz + (header[2] >> 1 & 1)

"""Truncated files of each kind are recognised if the container states a length."""

import io
import struct

import numpy as np
import pytest

from input_pipeline import audio
from input_pipeline.truncation import truncation
from tests.input_pipeline.conftest import encoded, noise

SAMPLES = 8000
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_24"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def written(kind: str, samples: int = SAMPLES, rate: int = 16000, **options) -> bytes:
    container, subtype = KINDS[kind]
    return encoded(noise(samples), rate, container, subtype=subtype, **options)


def reason(content: bytes) -> str:
    with pytest.raises(audio.AudioError) as caught:
        audio.decode(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.fast
@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_pass_and_every_cut_is_noticed(kind):
    content = written(kind)
    whole = audio.decode(content)
    assert abs(len(whole.samples) - SAMPLES) < 10
    for cut in [*range(1, len(content), max(1, len(content) // 60)), len(content) - 1]:
        assert reason(content[:cut]).startswith(("truncated: ", "not decodable: "))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("wav", r"truncated: its data has 7978 of 16000 bytes"),
        ("rf64", r"truncated: its data has 7948 of 16000 bytes"),
        ("aiff", r"truncated: its data has \d+ of 24008 bytes"),  # includes 8 for offset and block size
        ("au", r"truncated: its data has 7988 of 16000 bytes"),
        ("w64", r"truncated: its data has 7948 of 16000 bytes"),
        ("mp3", r"truncated: it has \d+ of \d+ bytes"),
    ],
)
def test_reasons_for_half_a_file(kind, says):
    content = written(kind)
    with pytest.raises(audio.AudioError, match=says):
        audio.decode(content[: len(content) // 2])


@pytest.mark.parametrize("kind", ["vorbis", "opus"])
def test_ogg_that_ends_between_pages(kind):
    content = written(kind, samples=80000)
    last = content.rfind(b"OggS")
    assert "its last page is not the end of the stream" in reason(content[:last])
    assert "its last page is cut off" in reason(content[: last + 40])


def test_flac_that_ends_between_frames():
    """The fourth frame begins with the sync code and its number, 3; the file is cut just before it."""
    content = written("flac", samples=48000)
    sync = content[content.index(b"\xff\xf8") :][:4]
    cut = content.index(sync[:2] + sync[2:4] + b"\x03")
    assert reason(content[:cut]).startswith(("truncated: it has ", "not decodable: "))


def test_mp3_whose_tag_states_only_frames():
    content = bytearray(written("mp3", samples=48000))
    tag = content.index(b"Xing")
    flags, frames, size = struct.unpack(">3I", content[tag + 4 : tag + 16])
    assert flags & 3 == 3
    assert size == len(content)
    content[tag + 4 : tag + 8] = struct.pack(">I", flags & ~2)
    audio.decode(bytes(content))
    assert f"of {frames} frames" in reason(bytes(content[: len(content) // 2]))


def test_mp3_after_an_id3_tag():
    tagged = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128) + written("mp3")
    audio.decode(tagged)
    assert reason(tagged[:-300]).startswith("truncated: it has")


@pytest.mark.fast
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000], ids=["ffmpeg", "sox"])
def test_a_wave_file_from_a_pipe_has_an_open_length(length):
    content = written("wav")
    at = content.index(b"data") + 4
    content = (
        content[:4]
        + struct.pack("<I", length)
        + content[8:at]
        + struct.pack("<I", length)
        + content[at + 4 :]
    )
    np.testing.assert_array_equal(audio.decode(content).samples, audio.decode(written("wav")).samples)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "at", "length", "stated"),
    [
        ("au", 8, b"\xff" * 4, 16000),
        (
            "caf",
            lambda content: content.index(b"data") + 4,
            b"\xff" * 8,
            16004,
        ),  # includes 4 for the number of edits
        ("w64", lambda content: content.index(b"data") + 16, b"\xff" * 7 + b"\x7f", 16000),
    ],
)
def test_other_containers_state_a_length_or_leave_it_open(kind, at, length, stated):
    whole = written(kind)
    at = at if isinstance(at, int) else at(whole)
    assert reason(whole[:-100]) == f"truncated: its data has {stated - 100} of {stated} bytes"
    opened = whole[:at] + length + whole[at + len(length) :]
    assert truncation(io.BytesIO(opened[:-100])) == ""


def test_real_clips_are_whole(data_dir):
    for folder in ("esc10_44k1", "ravdess", "fsdd"):
        for path in sorted((data_dir / folder / "audio").iterdir())[:40]:
            audio.decode(path)
            with pytest.raises(audio.AudioError, match=r"truncated|not decodable"):
                audio.decode(path.read_bytes()[: path.stat().st_size * 2 // 3])


def mutations(content: bytes, rng: np.random.Generator, count: int):
    """Yield damaged copies: bytes (mostly of the header) changed, removed, doubled, inserted or cut off."""
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            damaged = damaged or bytearray(1)
            at = int(rng.integers(min(len(damaged), 200) if rng.random() < 0.7 else len(damaged)))
            length = int(rng.integers(1, 64))
            match rng.integers(6):
                case 0:
                    damaged[at] = rng.integers(256)
                case 1:
                    damaged[at : at + 4] = rng.choice(
                        [b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"]
                    )
                case 2:
                    del damaged[at : at + length]
                case 3:
                    damaged[at:at] = damaged[at : at + length]
                case 4:
                    damaged[at:at] = rng.bytes(length)
                case 5:
                    del damaged[max(1, len(damaged) - 20 * length) :]
        yield bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_sound_or_a_reason(kind):
    """3,000 files in all go through the same steps as any clip; the only possible error is AudioError."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    content = written(kind, samples=1500, rate=8000)
    reasons, decoded = set(), 0
    for damaged in mutations(content, rng, 300):
        try:
            sound = audio.resample(audio.decode(damaged, max_seconds=2.0), 16000)
        except audio.AudioError as error:
            reasons.add(str(error))
        else:
            samples, _ = audio.to_int16(sound.samples)
            assert 0 < len(samples) <= 2 * 16000 + 1
            decoded += 1
    assert "" not in reasons
    assert not any("\n" in reason for reason in reasons)
    assert len(reasons) >= 2
    if KINDS[kind][0] != "OGG":  # pages of Ogg have checksums
        assert decoded >= 5


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["vorbis", "opus"])
@pytest.mark.parametrize("place", ["capture pattern", "position", "sound", "lost page"])
def test_a_damaged_ogg_page_is_noticed(kind, place):
    """The decoder leaves the page out, so that the sound would be shorter or wrong without an error."""
    content = bytearray(written(kind, samples=160000))
    page = content.index(b"OggS", len(content) // 2)
    if place == "lost page":
        del content[page + 100 : content.index(b"OggS", page + 1)]
    else:
        content[page + {"capture pattern": 1, "position": 6, "sound": 900}[place]] ^= 1
    assert reason(bytes(content)) == f"damaged: its page at byte {page} is damaged"


@pytest.mark.fast
def test_ogg_with_a_tag_behind_its_end_is_whole():
    content = written("vorbis", samples=80000)
    assert len(audio.decode(content + b"TAG" + bytes(125)).samples) == 80000
    assert len(audio.decode(content + written("vorbis", samples=80000)).samples) >= 80000  # chained

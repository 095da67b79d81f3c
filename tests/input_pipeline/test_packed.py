"""AudioSet in HDF5 and tar files with real sound, and malicious files."""

import csv
import io
import itertools
import json
import shutil
import tarfile

import h5py
import numpy as np
import pytest
import soundfile
import soxr

from input_pipeline import DataError
from input_pipeline.datasets import hdf5, tar
from tests.input_pipeline.conftest import AUDIOSET_CLASSES, encoded, noise, prepare_audioset


@pytest.fixture
def clips(data_dir):
    """Four real clips of 5 s at 32 kHz by id, each with its machine ids."""
    with (data_dir / "audioset_meta" / AUDIOSET_CLASSES).open() as file:
        indices = {row["mid"]: int(row["index"]) for row in csv.DictReader(file)}
    clips = {}
    for number, sound in enumerate(sorted((data_dir / "esc10_44k1" / "audio").iterdir())[:4]):
        samples, rate = soundfile.read(sound, dtype="float32")
        samples = soxr.resample(samples[: 5 * rate], rate, 32000)
        mids = list(indices)[number : 2 * number + 1]
        clips[f"id_-{number}345678"] = np.rint(samples * 32767).astype(np.int16), mids
    return clips


@pytest.fixture
def folder(data_dir, tmp_path):
    folder = tmp_path / "audioset"
    folder.mkdir()
    shutil.copy(data_dir / "audioset_meta" / AUDIOSET_CLASSES, folder)
    return folder


def list_clips(folder, clips, name="eval_segments.csv", seconds=5):
    lines = [f'{key}, 10.000, {10 + seconds}.000, "{",".join(mids)}"\n' for key, (_, mids) in clips.items()]
    (folder / name).write_text("# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(lines))


def classes_of(data_dir):
    with (data_dir / "audioset_meta" / AUDIOSET_CLASSES).open() as file:
        return {row["mid"]: row["display_name"] for row in csv.DictReader(file)}


def assert_holds(prepared, split, clips, names, atol=1):
    rows = prepared.manifest(split).rows
    assert [row.id for row in rows] == list(clips)
    for row, record, (samples, mids) in zip(rows, prepared.source(split), clips.values(), strict=True):
        assert row.labels == tuple(names[mid] for mid in mids)
        expected = np.rint(soxr.resample(samples / np.float32(32768), 32000, 16000) * 32768)
        assert len(record["audio"]) == len(expected)
        np.testing.assert_allclose(record["audio"].astype(int), np.clip(expected, -32768, 32767), atol=atol)


def pack_panns(path, clips, classes=527):
    """Write a file like utils/dataset.py of PANNs: zero-padded to 10 s at 32 kHz, with one empty row."""
    with h5py.File(path, "w") as file:
        file.create_dataset("audio_name", shape=(len(clips) + 1,), dtype="S20")
        file.create_dataset("waveform", shape=(len(clips) + 1, 320000), dtype=np.int16)
        file.create_dataset("target", shape=(len(clips) + 1, classes), dtype=bool)
        file.attrs.create("sample_rate", data=32000, dtype=np.int32)
        for row, (key, (samples, mids)) in enumerate(clips.items()):
            file["audio_name"][row] = f"Y{key}.wav".encode()
            file["waveform"][row] = np.pad(samples, (0, 320000 - len(samples)))
            file["target"][row] = np.isin(np.arange(classes), mids)


def test_hdf5_of_panns_by_the_official_lists(folder, clips, data_dir, tmp_path):
    pack_panns(folder / "eval.h5", clips)
    list_clips(folder, clips)
    assert_holds(prepare_audioset(folder, tmp_path / "p"), "eval", clips, classes_of(data_dir))


def test_hdf5_of_panns_by_its_own_targets(folder, clips, data_dir, tmp_path):
    """Without lists, file names give the split and targets the classes, and clips keep their padding."""
    names = classes_of(data_dir)
    order = {mid: index for index, mid in enumerate(names)}
    own = {key: (samples, [order[mid] for mid in mids]) for key, (samples, mids) in clips.items()}
    first, rest = dict(list(own.items())[:1]), dict(list(own.items())[1:])
    (folder / "unbalanced_train").mkdir()
    pack_panns(folder / "balanced_train.h5", first)
    pack_panns(folder / "unbalanced_train" / "unbalanced_train_part00.h5", rest)
    prepared = prepare_audioset(folder, tmp_path / "p")
    assert prepared.splits == ("balanced", "unbalanced")
    for split, part in (("balanced", first), ("unbalanced", rest)):
        padded = {key: (np.pad(clips[key][0], (0, 160000)), clips[key][1]) for key in part}
        assert_holds(prepared, split, padded, names)


@pytest.mark.parametrize("lists", [True, False])
def test_hdf5_of_passt(folder, clips, data_dir, tmp_path, lists):
    names = classes_of(data_dir)
    targets = np.array([np.isin(list(names), mids) for _, mids in clips.values()])
    with h5py.File(folder / "eval_segments_mp3.hdf", "w") as file:
        file["audio_name"] = np.array([f"Y{key}.mp3".encode() for key in clips])
        file["target"] = np.packbits(targets, axis=-1)
        file.create_dataset("mp3", shape=(len(clips),), dtype=h5py.vlen_dtype(np.uint8))
        contents = [encoded(samples, 32000, "MP3") for samples, _ in clips.values()]
        for row, content in enumerate(contents):
            file["mp3"][row] = np.frombuffer(content, np.uint8)
    if lists:
        list_clips(folder, clips)
    decoded = [soundfile.read(io.BytesIO(content), dtype="int16")[0] for content in contents]
    expected = {key: (mp3, mids) for mp3, (key, (_, mids)) in zip(decoded, clips.items(), strict=True)}
    assert_holds(prepare_audioset(folder, tmp_path / "p"), "eval", expected, names)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("classes", "target", "expected"),
    [
        (20, np.eye(20, dtype=np.uint8)[[1, 19]], [("1",), ("19",)]),  # 0 and 1 in bytes
        (20, np.eye(20, dtype=bool)[[1, 19]], [("1",), ("19",)]),
        (20, np.array([[64, 0, 16], [0, 1, 128]], np.uint8), [("1", "19"), ("15", "16")]),  # packed
        (8, np.array([[64], [0]], np.uint8), [("1",), ()]),
        (1, np.array([[1], [0]], np.uint8), [("0",), ()]),
    ],
    ids=["bytes", "bools", "packed", "one_byte", "one_class"],
)
def test_the_width_tells_whether_targets_are_packed(classes, target, expected, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["audio_name"], file["waveform"] = np.array([b"a.wav", b"b.wav"]), np.zeros((2, 8), np.int16)
        file["target"] = target
        file.attrs["sample_rate"] = 32000
    assert [packed.labels for packed in hdf5.rows(tmp_path / "a.h5", classes)] == expected
    with pytest.raises(DataError, match=r"a.h5: target has the shape .*config.dataset.classes") as caught:
        list(hdf5.rows(tmp_path / "a.h5", 100))
    assert "\n" not in str(caught.value)


def pack_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_tar_by_the_official_lists(folder, clips, data_dir, tmp_path):
    members = [(f"audio/Y{key}.flac", encoded(samples, 32000, "FLAC")) for key, (samples, _) in clips.items()]
    pack_tar(folder / "00000.tar", members[:3])
    pack_tar(folder / "00001.tar", members[3:])
    list_clips(folder, clips)
    assert_holds(prepare_audioset(folder, tmp_path / "p"), "eval", clips, classes_of(data_dir))


def test_tar_by_its_own_labels(folder, clips, data_dir, tmp_path):
    """Labels may be machine ids, display names or indices, in json or cls, before or after the sound."""
    names = classes_of(data_dir)
    forms = [
        ("json", lambda mids: json.dumps({"labels": mids})),
        ("json", lambda mids: json.dumps({"text": ["heard"], "tag": [names[mid] for mid in mids]})),
        ("cls", lambda mids: " ".join(str(list(names).index(mid)) for mid in mids)),
        ("json", lambda mids: "[" * 100000),
    ]
    members = []
    for (suffix, form), (key, (samples, mids)) in zip(forms, clips.items(), strict=True):
        members += [(f"{key}.{suffix}", form(mids).encode()), (f"{key}.wav", encoded(samples, 32000))]
    pack_tar(folder / "eval-000.tar", members[::-1])
    prepared = prepare_audioset(folder, tmp_path / "p")
    expected = dict(list(clips.items())[-2::-1])
    assert_holds(prepared, "eval", expected, names)
    assert [(source.id, source.reason) for source in prepared.manifest("eval").rejected] == [
        (list(clips)[3], "no label")
    ]


def test_malicious_members_are_rejected(folder, tmp_path, capsys):
    """Each is rejected with a reason, nothing is written outside the copy, and the good clip is kept."""
    sound = encoded((noise(3200) * 32767).astype(np.int16), 32000)
    with tarfile.open(folder / "eval.tar", "w") as archive:

        def add(name, **attributes):
            info = tarfile.TarInfo(name)
            info.size = 0 if attributes else len(sound)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(sound) if info.isreg() else None)

        add("id_-good5678.wav")
        add("../../../id_-outside8.wav")
        add("/tmp/id_-absolute.wav")
        add("..\\id_-windows8.wav")
        add("id_-linked78.wav", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("id_-hardlink.wav", type=tarfile.LNKTYPE, linkname="/etc/passwd")
        add("id_-device78.wav", type=tarfile.CHRTYPE)
        add("id_-twice678.wav")
        add("id_-twice678.flac")
        huge = tarfile.TarInfo("id_-huge5678.wav")
        huge.size = 1 << 40
        archive.fileobj.write(huge.tobuf(tarfile.GNU_FORMAT))  # without the bytes that it declares
    keys = "good5678 outside8 absolute windows8 linked78 hardlink device78 twice678 huge5678"
    ids = [f"id_-{key}" for key in keys.split()]
    list_clips(folder, {key: (None, ["/m/09x0r"]) for key in ids})
    before = sorted(tmp_path.rglob("*"))
    manifest = prepare_audioset(folder, tmp_path / "p", max_failed_share=0.9).manifest("eval")
    assert [row.id for row in manifest.rows] == [ids[0]]
    reasons = {source.id.removeprefix("id_-"): source.reason for source in manifest.rejected}
    outside = "its name points outside the archive's folder"
    link = "a link or device, not a file"
    assert reasons == {
        **dict.fromkeys(["outside8", "absolute", "windows8"], outside),
        **dict.fromkeys(["linked78", "hardlink", "device78"], link),
        "twice678": "twice in the archive",
        "huge5678": "it declares 1099511627776 bytes, more than a clip can have",
    }
    new = [path for path in tmp_path.rglob("*") if path not in before]
    assert all(path.is_relative_to(tmp_path / "p") for path in new)
    assert "clips cannot be used; the first is '../../../id_-outside8.wav'" in capsys.readouterr().err


@pytest.mark.fast
def test_a_member_whose_name_is_not_utf8(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("caf\xe9.wav"))
    (packed,) = tar.members(tmp_path / "a.tar")
    assert (packed.name, packed.problem) == ("caf\\udce9.wav", "its name is not text in UTF-8")


def test_a_truncated_archive_keeps_its_whole_members(folder, tmp_path, capsys):
    sound = encoded((noise(32000) * 32767).astype(np.int16), 32000)
    pack_tar(folder / "eval.tar", [(f"id_-{i}345678.wav", sound) for i in range(3)])
    content = (folder / "eval.tar").read_bytes()
    (folder / "eval.tar").write_bytes(content[: 2 * (512 + 64512) - 1000])
    list_clips(folder, {f"id_-{i}345678": (None, ["/m/09x0r"]) for i in range(3)})
    manifest = prepare_audioset(folder, tmp_path / "p", max_failed_share=0.9).manifest("eval")
    assert [row.id for row in manifest.rows] == ["id_-0345678"]
    broken, absent = manifest.rejected
    assert "it declares 64044 bytes, but the archive has" in broken.reason
    assert "no sound file" in absent.reason
    assert "cannot be used" in capsys.readouterr().err


def header(name, size=0, type=tarfile.REGTYPE):
    """Return a header that states any size; a negative size is stored in base 256."""
    info = tarfile.TarInfo(name)
    info.type = type
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % 256**12).to_bytes(12, "big") if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


SPARSE = b"23 GNU.sparse.size=100\n".ljust(512, b"\0")  # tarfile then takes this as the size


@pytest.mark.fast
@pytest.mark.parametrize(
    ("blocks", "clips"),
    [
        ([header("z"), header("a.wav", -512)], 0),
        ([header("a.wav", -512)], 0),
        ([header("b.wav", 0), header("a.wav", -1024)], 1),
        ([header("z"), header("x", 23, tarfile.XHDTYPE), SPARSE, header("a.wav", -1536)], 1),
        ([header("z"), header("x", -1024, tarfile.XHDTYPE)], 0),
    ],
    ids=["to_itself", "first", "further", "hidden", "of_a_header"],
)
def test_a_size_that_points_backwards_ends_reading(tmp_path, blocks, clips):
    (tmp_path / "a.tar").write_bytes(b"".join(blocks) + bytes(1024))
    *sounds, broken = list(itertools.islice(tar.members(tmp_path / "a.tar"), 5))
    assert len(sounds) == clips
    assert broken.problem.startswith("the archive is cut off")


@pytest.mark.fast
@pytest.mark.parametrize("behind", [b"", header("z")], ids=["first", "behind"])
def test_nested_long_names_are_refused(tmp_path, behind):
    names = header("././@LongLink", 2, tarfile.GNUTYPE_LONGNAME) + b"a".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(behind + 1200 * names)
    if behind:
        (broken,) = tar.members(tmp_path / "a.tar")
        assert "recursion" in broken.problem
    else:
        with pytest.raises(DataError, match=r"a.tar is not an uncompressed tar archive .*recursion"):
            list(tar.members(tmp_path / "a.tar"))


@pytest.mark.fast
def test_names_are_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_BLOCK_ROWS", 2)
    names = np.array([b"a.wav", b"", b"c.wav", b"d.wav", b"e.wav"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["audio_name"], file["waveform"] = names, np.zeros((5, 8), np.int16)
        file["target"] = np.eye(5, dtype=bool)
        file.attrs["sample_rate"] = 32000
    read, original = [], h5py.Dataset.__getitem__

    def counted(self, where, **options):
        part = original(self, where, **options)
        read.append(len(part))
        return part

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    found = [(packed.name, packed.sound.row, packed.labels) for packed in hdf5.rows(tmp_path / "a.h5", 5)]
    assert found == [("a.wav", 0, ("0",)), *((f"{'abcde'[i]}.wav", i, (str(i),)) for i in (2, 3, 4))]
    assert max(read) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.pop("waveform"), "lacks audio_name, or both waveform and mp3"),
        (lambda file: _replace(file, "waveform", h5py.ExternalLink("/etc/passwd", "x")), "is a link"),
        (lambda file: _replace(file, "target", h5py.SoftLink("/waveform")), "target is a link"),
        (lambda file: _external(file), "waveform is not stored in this file"),
        (lambda file: _replace(file, "waveform", np.zeros((3, 8), np.int16)), r"shape \(3, 8\)"),
        (lambda file: _replace(file, "waveform", np.zeros((1, 8))), "is not int16"),
        (lambda file: file.attrs.pop("sample_rate"), "with the attribute sample_rate"),
        (lambda file: file.attrs.create("sample_rate", "32000"), "with the attribute sample_rate"),
        (lambda file: file.attrs.create("sample_rate", [32000, 16000]), "with the attribute sample_rate"),
        (lambda file: _replace(file, "audio_name", np.array([7])), "does not hold names"),
        (lambda file: _huge_chunks(file), "has chunks of more than"),
    ],
    ids="no_sound link soft_link external rows floats no_rate text_rate rates numbers huge_chunks".split(),  # noqa: SIM905
)
def test_malicious_or_unknown_hdf5_is_refused(folder, tmp_path, change, says):
    with h5py.File(folder / "eval.h5", "w") as file:
        file["audio_name"] = np.array([b"Yid_-0345678.wav"])
        file["waveform"] = np.zeros((1, 3200), np.int16)
        file["target"] = np.ones((1, 527), bool)
        file.attrs["sample_rate"] = 32000
        change(file)
    with pytest.raises(DataError, match=says) as caught:
        prepare_audioset(folder, tmp_path / "p")
    assert "\n" not in str(caught.value)
    assert "eval.h5" in str(caught.value)


def _replace(file, name, value):
    if name in file:
        del file[name]
    file[name] = value


def _external(file):
    del file["waveform"]
    file.create_dataset("waveform", (1, 100), np.int16, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _huge_chunks(file):
    del file["waveform"]
    file.create_dataset(
        "waveform", (1, 1 << 28), np.int16, chunks=(1, 1 << 28), compression="gzip", fillvalue=0
    )


@pytest.mark.parametrize("name", ["eval.h5", "eval.tar"])
def test_invalid_packed_files_are_refused(folder, tmp_path, name):
    (folder / name).write_bytes(b"neither the one nor the other" * 100)
    with pytest.raises(DataError, match=rf"{name} is not") as caught:
        prepare_audioset(folder, tmp_path / "p")
    assert "\n" not in str(caught.value)


def test_an_overlong_row_is_rejected_unread(folder, tmp_path):
    """Three hours of zeros, which take no space in the file, are rejected as too long."""
    with h5py.File(folder / "eval.h5", "w") as file:
        file["audio_name"] = np.array([b"Yid_-0345678.wav", b"Yid_-1345678.wav"])
        file.create_dataset("waveform", (2, 32000 * 10800), np.int16, chunks=(1, 32000), compression="gzip")
        file.attrs["sample_rate"] = 32000
    list_clips(folder, {f"id_-{i}345678": (None, ["/m/09x0r"]) for i in range(2)})
    with pytest.raises(DataError, match=r"longer than config.prepare.max_seconds=600"):
        prepare_audioset(folder, tmp_path / "p")

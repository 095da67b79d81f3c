"""The manifest of a prepared split, and the handling of unusable files."""

import hashlib
import json
import pathlib
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import soundfile

from input_pipeline import DataError, manifest
from tests.input_pipeline.conftest import prepare_folder


@pytest.mark.fast
def test_rows_describe_the_files(tmp_path):
    folder = tmp_path / "sounds"
    (folder / "cat").mkdir(parents=True)
    (folder / "dog").mkdir()
    loud = np.array(([0.25, -1.5, 1.25, 0.0] + [0.25] * 36) * 10)
    soundfile.write(folder / "cat" / "a.wav", np.stack([loud, loud], axis=1), 8000, subtype="FLOAT")
    soundfile.write(folder / "dog" / "b.flac", np.full(1600, -0.5), 16000)
    prepared = prepare_folder(folder, tmp_path / "prepared")
    a, b = prepared.manifest("fold1+fold2").rows
    assert a == manifest.Row(
        id="cat/a.wav",
        sha256=hashlib.sha256((folder / "cat" / "a.wav").read_bytes()).hexdigest(),
        samples=400,
        source_rate=8000,
        channels=2,
        peak=1.0,
        clipped=20,
        labels=("cat",),
    )
    assert (b.id, b.samples, b.source_rate, b.channels) == ("dog/b.flac", 800, 16000, 1)
    assert b.labels == ("dog",)
    records = prepared.source("fold1+fold2")
    assert [record["id"].decode() for record in records] == ["cat/a.wav", "dog/b.flac"]
    assert [len(record["audio"]) for record in records] == [400, 800]
    assert records[0]["audio"].tolist()[:4] == [8192, -32768, 32767, 0]


@pytest.mark.fast
def test_rows_records_and_targets_have_the_same_order(animals, tmp_path):
    prepared = prepare_folder(animals, tmp_path / "prepared")
    for split in (*prepared.splits, "fold3+fold1"):
        rows, records = prepared.manifest(split).rows, prepared.source(split)
        assert [row.id for row in rows] == [record["id"].decode() for record in records]
        assert [row.samples for row in rows] == [len(record["audio"]) for record in records]
        for row, record, target in zip(rows, records, prepared.targets(split), strict=True):
            assert [prepared.labels[i] for i in record["labels"]] == list(row.labels)
            assert [prepared.labels[i] for i in np.flatnonzero(target)] == list(row.labels)


def test_the_fingerprint_follows_content_and_labels(animals, tmp_path):
    first = prepare_folder(animals, tmp_path / "one")
    again = prepare_folder(animals, tmp_path / "two")
    assert [first.fingerprint(s) for s in first.splits] == [again.fingerprint(s) for s in again.splits]
    assert first.fingerprint("fold1") != first.fingerprint("fold2")
    assert first.fingerprint("fold1+fold2") not in (
        first.fingerprint("fold1"),
        first.fingerprint("fold2+fold1"),
    )
    (animals / "cat").rename(animals / "lion")
    renamed = prepare_folder(animals, tmp_path / "one")
    assert renamed.fingerprint("fold1") != first.fingerprint("fold1")


@pytest.mark.fast
@pytest.mark.parametrize("split", ["fold1", "fold5+fold1"])
def test_the_fingerprint_is_a_hash_of_the_rows(animals, tmp_path, split):
    """Runs hold fingerprints, so they must stay as they are."""
    (animals / "dog" / "3.wav").write_bytes(b"not a sound")
    (animals / "dog" / "4.wav").rename(animals / "dog" / "Hündin.wav")
    prepared = prepare_folder(animals, tmp_path / "prepared", max_failed_share=1.0)
    manifest = prepared.manifest(split)
    rows = [json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) + "\n" for row in manifest.rows]
    expected = hashlib.sha256("".join(rows).encode()).hexdigest()
    assert prepared.fingerprint(split) == expected
    assert any(prepared.manifest(name).rejected for name in prepared.splits)


@pytest.mark.fast
def test_a_bad_file_is_left_out_with_a_warning(animals, tmp_path, capsys):
    (animals / "cat" / "3.wav").write_bytes(b"not a sound")
    prepared = prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.5)
    splits = [prepared.manifest(split) for split in prepared.splits]
    rejected = [source for split in splits for source in split.rejected]
    assert [source.id for source in rejected] == ["cat/3.wav"]
    assert rejected[0].reason.startswith("not decodable")
    assert sum(len(split.rows) for split in splits) == 19
    warning = capsys.readouterr().err.strip()
    assert "\n" not in warning
    assert "1 of 4 files" in warning
    assert str(prepared.folder) in warning


def test_too_many_bad_files_stop_the_run_until_repaired(animals, tmp_path):
    for i in range(4):
        (animals / "dog" / f"{i}.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"config.prepare.max_failed_share=0.05") as caught:
        prepare_folder(animals, tmp_path / "prepared", folds=2)
    assert "\n" not in str(caught.value)
    listed = str(caught.value).split("listed in ")[1].split(" and ")[0]
    with open(listed) as file:
        assert file.read().count("not decodable") == 2
    for i in range(4):
        shutil.copy(animals / "cat" / f"{i}.wav", animals / "dog" / f"{i}.wav")
    prepared = prepare_folder(animals, tmp_path / "prepared", folds=2)
    assert not prepared.manifest("fold1+fold2").rejected


def test_one_bad_file_never_stops_a_run_unless_the_share_is_0(animals, tmp_path):
    """The limit is for mistakes that concern many files; in a small split, one file is more than 5 %."""
    (animals / "cat" / "3.wav").write_bytes(b"not a sound")
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert len(prepared.manifest("+".join(prepared.splits)).rows) == 19
    with pytest.raises(DataError, match=r"1 of 4 files .*max_failed_share=0,"):
        prepare_folder(animals, tmp_path / "other", max_failed_share=0.0)


@pytest.mark.parametrize("when", ["listed", "decoded", "reused"])
def test_all_splits_with_too_many_bad_files_are_named_at_once(animals, tmp_path, when):
    rows = [f"{kind}/{i}.wav,{kind},{i % 3 + 1}\n" for kind in ("cat", "dog") for i in range(10)]
    (animals / "a.csv").write_text("filename,label,fold\n" + "".join(rows))
    for name in ("cat/0.wav", "dog/0.wav", "cat/1.wav", "cat/2.wav", "dog/2.wav", "dog/5.wav"):
        (animals / name).write_bytes(b"not a sound")
        if when == "listed":
            (animals / name).unlink()
    if when == "reused":
        prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.5)
    with pytest.raises(
        DataError, match=r"2 of 8 files of split 'fold1', 3 of 6 of 'fold3' are unu"
    ) as caught:
        prepare_folder(animals, tmp_path / "prepared")
    message = str(caught.value)
    assert "fold2" not in message.replace("folds-5", "")
    assert message.endswith(": fix or remove them, or raise --config.prepare.max_failed_share")
    first, second = message.split("listed in ")[1].split(": fix")[0].split(" and ")
    assert len((first := pathlib.Path(first)).read_text().splitlines()) == (8 if when == "reused" else 2)
    assert len((first.parent / second).read_text().splitlines()) == (6 if when == "reused" else 3)


def test_a_stricter_share_is_checked_on_reuse(animals, tmp_path):
    for i in range(4):
        (animals / "cat" / f"{i}.wav").write_bytes(b"not a sound")
    prepare_folder(animals, tmp_path / "prepared", folds=2, max_failed_share=0.5)
    with pytest.raises(DataError, match="2 of 10 files"):
        prepare_folder(animals, tmp_path / "prepared", folds=2)


def test_a_split_without_a_good_file_is_refused(animals, tmp_path):
    for i in range(10):
        for kind in ("cat", "dog"):
            (animals / kind / f"{i}.wav").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"4 of 4 files of split 'fold1', .*, 4 of 4 of 'fold5' are unusable .*: fix or remove them$",
    ):
        prepare_folder(animals, tmp_path / "prepared", max_failed_share=1.0)


def test_an_overlong_file_is_rejected(animals, tmp_path):
    soundfile.write(animals / "cat" / "3.wav", np.zeros(16001), 8000)
    prepared = prepare_folder(animals, tmp_path / "p", max_failed_share=0.5, max_seconds=2.0)
    rejected = prepared.manifest("+".join(prepared.splits)).rejected
    assert [source.reason for source in rejected] == ["longer than config.prepare.max_seconds=2"]

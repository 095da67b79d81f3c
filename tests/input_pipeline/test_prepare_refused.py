"""What preparation refuses or leaves out: wrong names, folders and splits."""

import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
import soundfile

from input_pipeline import DataError, prepare
from input_pipeline.audio import how_to_convert
from input_pipeline.source import scan
from tests.input_pipeline.conftest import one_line, prepare_folder


def test_an_unwritable_prepared_dir_is_refused(animals, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "file" / "prepared")


@pytest.mark.fast
def test_too_many_missing_files_are_refused_before_conversion(animals, tmp_path, decoded):
    rows = [f"{kind}/{i}.wav,{kind},s\n" for kind in ("cat", "dog") for i in range(11)]  # 10 of each exist
    (animals / "a.csv").write_text("filename,label,split\n" + "".join(rows))
    with pytest.raises(DataError, match=r"2 of 22 files .*cat/10.wav: no sound file.*listed in (.*): fix"):
        prepare_folder(animals, tmp_path / "prepared")
    assert not decoded
    (listed,) = (tmp_path / "prepared").rglob("s.rejected.jsonl")
    assert listed.read_text().count("no sound file") == 2
    prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.1)
    assert not listed.exists()


@pytest.mark.fast
def test_unknown_splits_are_refused_before_conversion(animals, tmp_path, decoded):
    splits = {"train": "fold1+fold6", "test": "fold2"}
    with pytest.raises(
        DataError, match=r"config.splits: unknown split 'fold6': the splits are fold1, "
    ) as caught:
        prepare_folder(animals, tmp_path / "prepared", splits=splits)
    one_line(caught)
    assert not decoded
    prepare_folder(animals, tmp_path / "prepared")
    with pytest.raises(DataError, match=r"config.splits: unknown split 'fold6'"):  # with a finished copy too
        prepare_folder(animals, tmp_path / "prepared", splits=splits)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": "fold2+fold3+fold4+fold5", "test": "fold1"}, []),
        ({"train": "fold2+fold3", "test": "fold1"}, ["note: folder: .* config.splits: fold4, fold5"]),
        (
            {"train": "fold1+fold2+fold3", "valid": "fold2+fold4", "test": "fold5+fold3"},
            [
                "warning: config.splits.valid shares fold2 with",
                "warning: config.splits.test shares fold3 with",
            ],
        ),
        ({"test": "fold1"}, []),  # evaluation only
        (None, []),
    ],
)
def test_unused_and_overlapping_splits_are_reported(animals, tmp_path, capsys, splits, says):
    prepare_folder(animals, tmp_path / "prepared", splits=splits)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(says)
    for line, pattern in zip(lines, says, strict=True):
        assert re.match(pattern, line)


@pytest.mark.fast
def test_unknown_data_sets_and_options_are_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"config.dataset.name: unknown data set 'esc51': .*esc50.*quickstart"
    ) as caught:
        prepare("esc51", sample_rate=8000)
    one_line(caught)
    with pytest.raises(DataError, match=r"config.dataset.sub: .*'esc50'.* takes subset"):
        prepare("esc50", data_dir=str(tmp_path), sample_rate=8000, sub="esc10")
    with pytest.raises(DataError, match=r"config.dataset.seed='1' must be of type int"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, seed="1")
    with pytest.raises(DataError, match=r"config.dataset.seed=-1 must not be negative"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, seed=-1, progress=False)
    with pytest.raises(DataError, match="lists no clips"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, train_clips=0, test_clips=0)


@pytest.mark.fast
def test_a_missing_data_dir_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"config.data_dir: .*absent does not exist"):
        prepare_folder(tmp_path / "absent", tmp_path / "prepared")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"config.data_dir: .* is not a folder"):
        prepare_folder(tmp_path / "file", tmp_path / "prepared")
    with pytest.raises(DataError, match=r"--config.data_dir"):
        prepare("folder", prepared_dir=str(tmp_path), sample_rate=8000)


def test_an_unreadable_folder_is_refused(animals, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # a mode would not stop root
    with pytest.raises(DataError, match=r"config.data_dir: cannot read .*dog: Permission denied"):
        prepare_folder(animals, tmp_path / "prepared")


@pytest.mark.fast
def test_a_folder_without_sound_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("meow")
    (tmp_path / "cat" / "._a.wav").write_text("what macOS leaves on other disks")
    with pytest.raises(DataError, match=r"config.data_dir: no sound files in .*\.wav") as caught:
        prepare_folder(tmp_path, tmp_path / "prepared")
    for suffix in caught.value.args[0].partition("expected some of ")[2].split():
        assert not how_to_convert(f"x{suffix}")


def test_a_pipe_named_like_a_sound_is_refused(animals, tmp_path):
    os.mkfifo(animals / "cat" / "pipe.wav")
    with pytest.raises(DataError, match=r"pipe.wav is not a regular file"):
        prepare_folder(animals, tmp_path / "prepared")


@pytest.mark.fast
def test_links_to_no_file_are_left_out(animals, tmp_path):
    (animals / "cat" / "3.wav").unlink()
    (animals / "cat" / "3.wav").symlink_to(tmp_path / "on another disk.wav")
    (animals / "dog" / "5.wav").unlink()
    (animals / "dog" / "5.wav").symlink_to("5.wav")  # to itself
    prepared = prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.5)
    rejected = prepared.manifest("+".join(prepared.splits)).rejected
    assert sorted((bad.id, bad.reason) for bad in rejected) == [
        ("cat/3.wav", "a link to a file that does not exist"),
        ("dog/5.wav", "a link to a file that does not exist"),
    ]
    soundfile.write(tmp_path / "on another disk.wav", np.zeros(800), 8000)  # it is prepared again then
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert [bad.id for bad in prepared.manifest("+".join(prepared.splits)).rejected] == ["dog/5.wav"]


def test_linked_folders_are_followed_and_loops_are_not(animals, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cat").symlink_to(animals / "cat")
    (tmp_path / "linked" / "dog").symlink_to(animals / "dog")
    (animals / "dog" / "loop").symlink_to(animals / "dog")
    prepared = prepare_folder(tmp_path / "linked", tmp_path / "prepared")
    assert sum(len(prepared.source(split)) for split in prepared.splits) == 20


@pytest.mark.fast
def test_a_folder_keeps_its_own_name_despite_links(animals, capsys):
    (animals / "a_kitten").symlink_to(animals / "cat")
    (animals / "kitten").symlink_to(animals / "cat")
    classes = {name.split("/")[0] for name in scan(animals)}
    assert classes == {"cat", "dog"}
    said = capsys.readouterr().err
    assert "2 links in" in said
    assert "'a_kitten' is skipped, 'cat' is read" in said
    assert said.count("\n") == 1


@pytest.mark.fast
@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u200d"])
def test_unusual_spaces_in_names_are_accepted(animals, space):
    name = f"cat/a{space}b.wav"
    (animals / "cat" / "0.wav").rename(animals / name)
    assert name in scan(animals)


@pytest.mark.fast
@pytest.mark.parametrize("end", ["\n", "\x7f", "\x85", "\u2028", "\u2029", "\udcff"])
def test_unprintable_names_are_refused(animals, end):
    (animals / "cat" / "0.wav").rename(animals / "cat" / f"a{end}b.wav")
    with pytest.raises(DataError, match="not printable text: rename it") as caught:
        scan(animals)
    one_line(caught)


def test_identical_clips_in_two_splits_are_reported(write_sounds, tmp_path, capsys):
    folder = write_sounds({"train/cat/a.wav": 100, "train/dog/b.wav": 100, "test/cat/c.wav": 100})
    prepare_folder(folder, tmp_path / "p")
    assert capsys.readouterr().err == ""
    for copy in ("train/cat/d.wav", "train/dog/e.wav", "test/dog/f.wav"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "train/cat/a.wav", folder / copy)
    shutil.copy(folder / "train/dog/b.wav", folder / "test/cat/g.wav")
    for run in range(2):  # the copy is made, then reused
        prepared = prepare_folder(folder, tmp_path / "p")
        listed = [json.loads(line) for line in (prepared.folder / "twins.jsonl").read_text().splitlines()]
        assert [(twin["id"], twin["reason"]) for twin in listed] == [
            ("train/cat/a.wav", "in train, identical to 'test/dog/f.wav' in test"),
            ("train/cat/d.wav", "in train, identical to 'test/dog/f.wav' in test"),
            ("train/dog/b.wav", "in train, identical to 'test/cat/g.wav' in test"),
            ("train/dog/e.wav", "in train, identical to 'test/dog/f.wav' in test"),
        ], run
        said = capsys.readouterr().err
        assert (
            "warning: folder: 4 clips are byte for byte in another split too; the first is 'train/cat/a"
            in said
        )
        assert said.count("\n") == 1

"""Preparing once: reuse, change, kills, competing processes, full disks, wrong input."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import soundfile

from input_pipeline import DataError, prepare
from input_pipeline.datasets.builder import AudioBuilder
from tests.input_pipeline.conftest import noise

REPOSITORY = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: object, **options) -> subprocess.Popen:
    """Starts Python on a script, with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def prepare_folder(folder, root, **options):
    options = {"sample_rate": 8000, "progress": False, **options}
    return prepare("folder", data_dir=str(folder), prepared_dir=str(root), **options)


@pytest.fixture
def decoded(monkeypatch):
    """The ids of the clips that were decoded, in order."""
    ids = []
    original = AudioBuilder._convert
    monkeypatch.setattr(
        AudioBuilder, "_convert", lambda self, clip: (ids.append(clip.id), original(self, clip))[1]
    )
    return ids


@pytest.mark.fast
def test_a_second_run_reuses_the_copy(animals, tmp_path, decoded):
    first = prepare_folder(animals, tmp_path / "prepared")
    assert len(decoded) == 20
    assert prepare_folder(animals, tmp_path / "prepared") == first
    assert len(decoded) == 20


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: shutil.copy(folder / "cat" / "0.wav", folder / "cat" / "new.wav"),
        lambda folder: (folder / "cat" / "0.wav").unlink(),
        lambda folder: (folder / "cat" / "0.wav").rename(folder / "dog" / "cat.wav"),
        lambda folder: soundfile.write(folder / "cat" / "0.wav", noise(750), 8000),
        lambda folder: (folder / "cat" / "0.wav").write_bytes((folder / "cat" / "1.wav").read_bytes()),
    ],
    ids=["added", "removed", "moved", "shortened", "rewritten"],
)
def test_a_changed_folder_is_prepared_anew(animals, tmp_path, decoded, change):
    first = prepare_folder(animals, tmp_path / "prepared")
    change(animals)
    decoded.clear()
    second = prepare_folder(animals, tmp_path / "prepared")
    assert decoded
    assert second.folder != first.folder


def test_a_changed_table_is_prepared_anew(animals, tmp_path):
    table = animals / "labels.csv"
    table.write_text("filename,label\ncat/0.wav,cat\ndog/0.wav,dog\n")
    first = prepare_folder(animals, tmp_path / "prepared", folds=2)
    table.write_text("filename,label\ncat/0.wav,dog\ndog/0.wav,cat\n")
    second = prepare_folder(animals, tmp_path / "prepared", folds=2)
    assert first.manifest("fold1").rows[0].labels != second.manifest("fold1").rows[0].labels


def test_rate_and_options_are_part_of_the_identity(animals, tmp_path):
    folders = {
        prepare_folder(animals, tmp_path / "prepared", **options).folder
        for options in ({}, {"sample_rate": 4000}, {"folds": 2}, {"max_seconds": 1.0})
    }
    assert len(folders) == 4


KILLED = """
    import os, signal, sys
    from input_pipeline import prepare, prepare as _, manifest
    from input_pipeline.datasets.builder import AudioBuilder

    def die(*arguments): os.kill(os.getpid(), signal.SIGKILL)

    moment, folder, root = sys.argv[1:]
    count, convert = 0, AudioBuilder._convert
    def counted(self, clip):
        global count
        count += 1
        if str(count) == moment: die()
        return convert(self, clip)
    AudioBuilder._convert = counted
    if moment == "manifest": manifest.Manifest.write = die
    if moment == "rename":
        import tensorflow_datasets as tfds
        tfds.core.DatasetInfo.write_to_directory = die
    prepare("folder", data_dir=folder, prepared_dir=root, sample_rate=8000, progress=False)
"""


@pytest.mark.parametrize("moment", ["1", "13", "manifest", "rename"])
def test_killed_while_preparing(animals, tmp_path, moment):
    process = run(KILLED, moment, animals, tmp_path / "prepared")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    left = list((tmp_path / "prepared").rglob("incomplete.*"))
    assert left  # it was killed halfway, else this tests nothing
    prepared = prepare_folder(animals, tmp_path / "prepared")
    whole = prepare_folder(animals, tmp_path / "whole")
    for split in whole.splits:
        assert prepared.fingerprint(split) == whole.fingerprint(split)
        assert len(prepared.source(split)) == len(whole.source(split)) == 4
    assert not list((tmp_path / "prepared").rglob("incomplete.*"))


def test_processes_that_prepare_at_once(animals, tmp_path):
    script = """
        import sys
        from input_pipeline import prepare
        prepared = prepare(
            "folder", data_dir=sys.argv[1], prepared_dir=sys.argv[2], sample_rate=8000, progress=False
        )
        print(prepared.fingerprint("+".join(prepared.splits)), len(prepared.source("fold1")))
    """
    processes = [run(script, animals, tmp_path / "prepared") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert len(list((tmp_path / "prepared" / "folder").glob("*/1.0.0"))) == 1
    assert not list((tmp_path / "prepared").rglob("incomplete.*"))


def test_no_tensorflow_and_nothing_of_the_package_above(tmp_path):
    script = """
        import sys
        import input_pipeline
        prepared = input_pipeline.prepare(
            "quickstart", prepared_dir=sys.argv[1], sample_rate=4000, train_clips=10, test_clips=10
        )
        batches = input_pipeline.train_batches(
            prepared, "train", crop_samples=4000, batch_size=2, seed=0
        )
        next(batches)
        batches.close()
        assert "tensorflow" not in sys.modules
        assert not [name for name in sys.modules if name.startswith("rann_jax")]
    """
    process = run(script, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == ""  # TFDS prints to stdout when it is let
    assert "preparing quickstart: 100%" in err
    assert "clips/s" in err
    assert "WARNING" not in err


def test_no_space_left(animals, tmp_path, monkeypatch):
    def full(self, clip):
        raise RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; writing a record")

    monkeypatch.setattr(AudioBuilder, "_convert", full)
    with pytest.raises(DataError, match=r"No space left.*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "prepared")
    monkeypatch.undo()
    assert len(prepare_folder(animals, tmp_path / "prepared").source("fold1")) == 4


def test_prepared_dir_that_cannot_be_made(animals, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "file" / "prepared")


@pytest.mark.parametrize("taken", ["*.array_record*", "*.manifest.jsonl", "dataset_info.json"])
def test_a_damaged_copy(animals, tmp_path, taken):
    folder = prepare_folder(animals, tmp_path / "prepared").folder
    next(folder.glob(taken)).unlink()
    with pytest.raises(DataError, match=r"damaged, it lacks .*: delete it"):
        prepare_folder(animals, tmp_path / "prepared")


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.fast
def test_unknown_data_set_and_option(tmp_path):
    with pytest.raises(
        DataError, match=r"config.dataset.name: unknown data set 'esc51': .*esc50.*quickstart"
    ) as caught:
        prepare("esc51", sample_rate=8000)
    one_line(caught)
    with pytest.raises(DataError, match=r"config.dataset.sub: .*'esc50'.* takes subset"):
        prepare("esc50", data_dir=str(tmp_path), sample_rate=8000, sub="esc10")
    with pytest.raises(DataError, match=r"config.dataset.seed='1' must be of type int"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, seed="1")
    with pytest.raises(DataError, match="lists no clips"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, train_clips=0, test_clips=0)


@pytest.mark.fast
def test_missing_data_dir(tmp_path):
    with pytest.raises(DataError, match=r"config.data_dir: .*absent does not exist"):
        prepare_folder(tmp_path / "absent", tmp_path / "prepared")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"config.data_dir: .* is not a folder"):
        prepare_folder(tmp_path / "file", tmp_path / "prepared")
    with pytest.raises(DataError, match=r"--config.data_dir"):
        prepare("folder", prepared_dir=str(tmp_path), sample_rate=8000)


def test_folder_that_cannot_be_read(animals, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, who may run this, can read every folder
    with pytest.raises(DataError, match=r"config.data_dir: cannot read .*dog: Permission denied"):
        prepare_folder(animals, tmp_path / "prepared")


@pytest.mark.fast
def test_no_sound_in_the_folder(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("meow")
    (tmp_path / "cat" / "._a.wav").write_text("what macOS leaves on other disks")
    with pytest.raises(DataError, match=r"config.data_dir: no sound files in .*\.wav"):
        prepare_folder(tmp_path, tmp_path / "prepared")


def test_a_pipe_named_like_a_sound(animals, tmp_path):
    os.mkfifo(animals / "cat" / "pipe.wav")
    with pytest.raises(DataError, match=r"pipe.wav is not a regular file"):
        prepare_folder(animals, tmp_path / "prepared")


def test_linked_folders_are_followed_and_loops_are_not(animals, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "cat").symlink_to(animals / "cat")
    (tmp_path / "linked" / "dog").symlink_to(animals / "dog")
    (animals / "dog" / "loop").symlink_to(animals / "dog")
    prepared = prepare_folder(tmp_path / "linked", tmp_path / "prepared")
    assert sum(len(prepared.source(split)) for split in prepared.splits) == 20

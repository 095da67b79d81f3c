"""Interrupted preparation and damaged copies: kills, full disks, files that vanish."""

import errno
import fnmatch
import os
import shutil
import signal
from pathlib import Path

import pytest
import tqdm
from joblib.externals.loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

from input_pipeline import DataError, audio, shards
from input_pipeline.datasets import conversion
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.shards import Recipe
from tests.input_pipeline.conftest import assert_same_copy, one_line, prepare_folder, run

KILLED = """
    import os, signal, sys
    from input_pipeline import prepare, manifest, shards

    def die(*arguments): os.kill(os.getpid(), signal.SIGKILL)

    moment, folder, root = sys.argv[1:]
    shards.CLIPS_PER_SHARD = 3
    count, convert = 0, shards.Recipe.convert
    def counted(self, clip):
        global count
        count += 1
        if str(count) == moment: die()
        return convert(self, clip)
    shards.Recipe.convert = counted
    if moment == "manifest": manifest.Manifest.write = die
    if moment == "rename":
        import tensorflow_datasets as tfds
        tfds.core.DatasetInfo.write_to_directory = die
    prepare("folder", data_dir=folder, prepared_dir=root, sample_rate=8000, progress=False)
"""


# With 20 clips in 10 shards: at the first clip, in the seventh shard, at the first manifest, at the very end.
@pytest.mark.parametrize(("moment", "left_to_do"), [("1", 20), ("13", 8), ("manifest", 20), ("rename", 0)])
def test_killed_while_preparing(animals, tmp_path, moment, left_to_do, small_shards, decoded):
    process = run(KILLED, moment, animals, tmp_path / "prepared")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    left = list((tmp_path / "prepared").rglob("incomplete.*"))
    assert left  # it was killed halfway, or this test would check nothing
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert len(decoded) == left_to_do
    whole = prepare_folder(animals, tmp_path / "whole")
    assert_same_copy(prepared, whole)
    assert [len(whole.source(split)) for split in whole.splits] == [4] * 5
    assert [path.name for path in prepared.folder.parent.iterdir() if path.is_dir()] == ["3.0.0"]


@pytest.mark.fast
@pytest.mark.parametrize("damage", ["cut", "emptied", "of_other_clips"])
def test_a_damaged_finished_shard_is_redone(animals, tmp_path, small_shards, monkeypatch, damage):
    whole = prepare_folder(animals, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_gather", lambda *arguments: os.strerror(errno.EIO) / 1)
        with pytest.raises(TypeError):
            prepare_folder(animals, tmp_path / "prepared")
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.3.0.0")
    first, second = sorted(staging.glob("*.array_record"))[:2]
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-100])
    elif damage == "emptied":
        first.write_bytes(b"")
    else:
        shutil.copy(second.with_suffix(".manifest.jsonl"), first.with_suffix(".manifest.jsonl"))
    assert_same_copy(prepare_folder(animals, tmp_path / "prepared"), whole)


@pytest.mark.fast
def test_two_machines_may_write_the_same_shard(tmp_path):
    """Even if their processes have the same number, as in containers, and the disk has no locks."""
    final = tmp_path / "train-000000000.array_record"
    with shards._renamed(final) as first:
        first.write_text("all of the first")
        with shards._renamed(final) as second:
            second.write_text("half")
            assert first.read_text() == "all of the first"
            second.write_text("all of the second")
        assert final.read_text() == "all of the second"
    assert final.read_text() == "all of the first"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.fast
def test_the_progress_bar_starts_at_the_finished_clips(animals, tmp_path, small_shards, monkeypatch):
    bars = []
    made = lambda **options: bars.append(tqdm.tqdm(**options)) or bars[-1]  # noqa: E731
    monkeypatch.setattr(conversion, "tqdm", made)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "_gather", lambda *arguments: os.strerror(errno.EIO) / 1)
        with pytest.raises(TypeError):
            prepare_folder(animals, tmp_path / "prepared", progress=True)
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.3.0.0")
    sorted(staging.glob("*.manifest.jsonl"))[0].unlink()  # a shard of three clips
    prepare_folder(animals, tmp_path / "prepared", progress=True)
    assert [(bar.initial, bar.n) for bar in bars] == [(0, 20), (17, 20)]


def test_killed_with_workers(animals, tmp_path, small_shards):
    """After a kill when the first shard is finished, all shards that the workers finished are kept."""
    script = """
        import os, signal, sys
        import tqdm
        from input_pipeline import prepare, shards
        shards.CLIPS_PER_SHARD = 3
        tqdm.tqdm.update = lambda self, count: count and os.kill(os.getpid(), signal.SIGKILL)
        prepare(
            "folder", data_dir=sys.argv[1], prepared_dir=sys.argv[2], sample_rate=8000, workers=2,
            progress=False,
        )
    """
    process = run(script, animals, tmp_path / "prepared")
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.3.0.0")
    finished = {path.stat().st_ino for path in staging.glob("[a-z]*.array_record")}
    assert finished
    prepared = prepare_folder(animals, tmp_path / "prepared", workers=2)
    assert finished <= {path.stat().st_ino for path in prepared.folder.iterdir()}  # linked, not written again
    assert_same_copy(prepared, prepare_folder(animals, tmp_path / "whole"))


@pytest.mark.fast
def test_a_killed_worker_is_one_line(animals, tmp_path, monkeypatch, small_shards):
    def killed(*arguments, **options):
        raise TerminatedWorkerError("a process was terminated abruptly\nexit codes: SIGKILL(-9)")

    monkeypatch.setattr(ProcessPoolExecutor, "submit", killed)
    with pytest.raises(
        DataError, match=r"a worker .* config.prepare.workers; finished shards are kept"
    ) as caught:
        prepare_folder(animals, tmp_path / "prepared", workers=2)
    one_line(caught)


def test_preparation_works_without_hard_links(animals, tmp_path, small_shards, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    whole = prepare_folder(animals, tmp_path / "whole")
    monkeypatch.setattr(os, "link", refuse)
    assert_same_copy(prepare_folder(animals, tmp_path / "prepared"), whole)


def test_a_full_disk_is_reported(animals, tmp_path, monkeypatch):
    def full(self, clip):
        raise RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; writing a record")

    monkeypatch.setattr(Recipe, "convert", full)
    with pytest.raises(DataError, match=r"No space left.*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "prepared")
    monkeypatch.undo()
    assert len(prepare_folder(animals, tmp_path / "prepared").source("fold1")) == 4


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EACCES, errno.EIO, errno.ESTALE)),
        MemoryError(),
    ],
    ids=["permission", "input_output", "stale", "memory"],
)
def test_a_temporarily_unreadable_file_stops_the_run(
    animals, tmp_path, small_shards, monkeypatch, decoded, error
):
    """The clip itself may be fine, so the run stops; after the repair it resumes and includes the clip."""
    opened = Path.open

    def refuse(self, *arguments, **options):
        if self == animals / "cat" / "3.wav":
            raise error
        return opened(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"cannot read .*cat/3.wav: .*finished shards are kept") as caught:
            prepare_folder(animals, tmp_path / "prepared", max_failed_share=1.0)
    one_line(caught)
    tried = len(decoded)
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert not prepared.manifest("+".join(prepared.splits)).rejected
    assert len(decoded) < tried + 20
    assert_same_copy(prepared, prepare_folder(animals, tmp_path / "whole"))


def test_rejected_clips_are_tried_again(animals, tmp_path, small_shards, monkeypatch, decoded):
    """After too many rejections, only shards without rejected clips are kept."""
    decode = audio.decode

    def refuse(source, **options):
        if source == animals / "cat" / "3.wav":
            raise audio.AudioError("not decodable: by this version")
        return decode(source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", refuse)
        with pytest.raises(DataError, match=r"1 of 4 files .*by this version"):
            prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.0)
    decoded.clear()
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert not prepared.manifest("+".join(prepared.splits)).rejected
    assert "cat/3.wav" in decoded
    assert len(decoded) in (1, 3)


def test_a_vanished_archive_is_a_read_error(animals, tmp_path, monkeypatch):
    """The error is about reading the source, so it does not ask for disk space."""

    def gone(self):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(animals / "a.tar"))

    monkeypatch.setattr(AudioBuilder, "listing", property(gone))
    with pytest.raises(DataError, match=r"cannot read .*a.tar: No such file or directory: fix"):
        prepare_folder(animals, tmp_path / "prepared")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ("fold1.*array_record*", r"split 'fold1' has \d+ of \d+ bytes"),
        ("fold1.manifest.jsonl", r"fold1.manifest.jsonl cannot be read: .*"),
        ("fold2.manifest.jsonl", r"fold2.manifest.jsonl has 3 of 4 clips"),
    ],
)
def test_a_half_copied_copy_is_refused(animals, tmp_path, cut, says):
    folder = prepare_folder(animals, tmp_path / "prepared").folder
    (path,) = (path for path in folder.glob("*") if fnmatch.fnmatch(path.name, f"*{cut}"))
    content = path.read_bytes()
    path.write_bytes(content[: content[:-1].rindex(b"\n") + 1] if "fold2" in cut else content[:-20])
    with pytest.raises(DataError, match=rf"damaged \({says}\): delete it, or copy it again") as caught:
        prepare_folder(animals, tmp_path / "prepared")
    one_line(caught)


@pytest.mark.parametrize("taken", ["*.array_record*", "*.manifest.jsonl", "dataset_info.json"])
def test_a_copy_with_missing_files_is_refused(animals, tmp_path, taken):
    folder = prepare_folder(animals, tmp_path / "prepared").folder
    next(folder.glob(taken)).unlink()
    with pytest.raises(DataError, match=r"damaged \(it lacks .*: delete it"):
        prepare_folder(animals, tmp_path / "prepared")

"""Preparing once: reuse, change, kills, competing processes, full disks, wrong input."""

import errno
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
import tqdm
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tensorflow_datasets.core.utils import tqdm_utils

from input_pipeline import DataError, audio, generate, prepare, shards
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.source import scan
from input_pipeline.shards import Recipe
from tests.input_pipeline.conftest import noise

REPOSITORY = Path(__file__).resolve().parents[2]


# Warnings are errors, but for TFDS' with the protobuf that Apache Beam asks for.
STRICT = ("-W", "error", "-W", "ignore:label() is deprecated:DeprecationWarning")


def run(script: str, *arguments: object, **options) -> subprocess.Popen:
    """Starts Python on a script, strictly."""
    return subprocess.Popen(
        [sys.executable, *STRICT, "-c", textwrap.dedent(script), *map(str, arguments)],
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
    original = Recipe.convert
    monkeypatch.setattr(Recipe, "convert", lambda self, clip: (ids.append(clip.id), original(self, clip))[1])
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
    labels = [{row.id: row.labels for row in copy.manifest("fold1+fold2").rows} for copy in (first, second)]
    assert labels == [
        {"cat/0.wav": ("cat",), "dog/0.wav": ("dog",)},
        {"cat/0.wav": ("dog",), "dog/0.wav": ("cat",)},
    ]


def test_rate_and_options_are_part_of_the_identity(animals, tmp_path):
    folders = {
        prepare_folder(animals, tmp_path / "prepared", **options).folder
        for options in ({}, {"sample_rate": 4000}, {"folds": 2}, {"max_seconds": 1.0})
    }
    assert len(folders) == 4


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


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of three clips: two a fold of the animals, of three clips and one."""
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)


def assert_same_copy(one, other):
    """Byte for byte, all files but those that TFDS writes about the copy's own place."""
    files = {path.name for path in one.folder.iterdir()}
    assert files == {path.name for path in other.folder.iterdir()}
    for name in files - {"dataset_info.json", "metadata.json"}:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    for split in one.splits:
        assert one.fingerprint(split) == other.fingerprint(split)


# Of 20 clips in 10 shards: before anything is finished, in the seventh shard, with all clips converted.
@pytest.mark.parametrize(("moment", "left_to_do"), [("1", 20), ("13", 8), ("manifest", 20), ("rename", 0)])
def test_killed_while_preparing(animals, tmp_path, moment, left_to_do, small_shards, decoded):
    process = run(KILLED, moment, animals, tmp_path / "prepared")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    left = list((tmp_path / "prepared").rglob("incomplete.*"))
    assert left  # it was killed halfway, else this tests nothing
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert len(decoded) == left_to_do
    whole = prepare_folder(animals, tmp_path / "whole")
    assert_same_copy(prepared, whole)
    assert [len(whole.source(split)) for split in whole.splits] == [4] * 5
    assert [path.name for path in prepared.folder.parent.iterdir() if path.is_dir()] == ["2.0.0"]


@pytest.mark.fast
@pytest.mark.parametrize("damage", ["cut", "emptied", "of_other_clips"])
def test_a_finished_shard_that_is_damaged_is_done_again(animals, tmp_path, small_shards, monkeypatch, damage):
    whole = prepare_folder(animals, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(AudioBuilder, "_gather", lambda *arguments: os.strerror(errno.EIO) / 1)
        with pytest.raises(TypeError):
            prepare_folder(animals, tmp_path / "prepared")
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.2.0.0")
    first, second = sorted(staging.glob("*.array_record"))[:2]
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-100])
    elif damage == "emptied":
        first.write_bytes(b"")
    else:
        shutil.copy(second.with_suffix(".manifest.jsonl"), first.with_suffix(".manifest.jsonl"))
    assert_same_copy(prepare_folder(animals, tmp_path / "prepared"), whole)


@pytest.mark.fast
def test_the_rate_shown_is_of_what_was_left_to_do(animals, tmp_path, small_shards, monkeypatch):
    bars = []
    made = lambda **options: bars.append(tqdm.tqdm(**options)) or bars[-1]  # noqa: E731
    monkeypatch.setattr(sys.modules["input_pipeline.generate"], "tqdm", made)
    with monkeypatch.context() as patch:
        patch.setattr(AudioBuilder, "_gather", lambda *arguments: os.strerror(errno.EIO) / 1)
        with pytest.raises(TypeError):
            prepare_folder(animals, tmp_path / "prepared", progress=True)
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.2.0.0")
    sorted(staging.glob("*.manifest.jsonl"))[0].unlink()  # of three clips
    prepare_folder(animals, tmp_path / "prepared", progress=True)
    assert [(bar.initial, bar.n) for bar in bars] == [(0, 20), (17, 20)]


def test_workers_change_nothing(animals, tmp_path, small_shards):
    (animals / "dog" / "3.wav").write_bytes(b"not a sound")
    options = {"max_failed_share": 0.5}
    copies = [prepare_folder(animals, tmp_path / str(n), workers=n, **options) for n in (1, 2, 3)]
    for copy in copies[1:]:
        assert_same_copy(copy, copies[0])
        rejected = [source for split in copy.splits for source in copy.manifest(split).rejected]
        assert [source.id for source in rejected] == ["dog/3.wav"]


def test_killed_with_workers(animals, tmp_path, small_shards):
    """Killed when the first shard is finished; what the workers finished is kept as it is."""
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
    (staging,) = (tmp_path / "prepared" / "folder").glob("*/unfinished.2.0.0")
    finished = {path.stat().st_ino for path in staging.glob("[a-z]*.array_record")}
    assert finished
    prepared = prepare_folder(animals, tmp_path / "prepared", workers=2)
    assert finished <= {path.stat().st_ino for path in prepared.folder.iterdir()}  # linked, not made anew
    assert_same_copy(prepared, prepare_folder(animals, tmp_path / "whole"))


@pytest.mark.fast
def test_a_worker_that_is_killed(animals, tmp_path, monkeypatch, small_shards):
    def killed(*arguments):
        raise TerminatedWorkerError("a process was terminated abruptly\nexit codes: SIGKILL(-9)")

    monkeypatch.setattr(joblib.Parallel, "__call__", killed)
    with pytest.raises(
        DataError, match=r"a worker .* config.prepare.workers; finished shards are kept"
    ) as caught:
        prepare_folder(animals, tmp_path / "prepared", workers=2)
    one_line(caught)


def test_without_hard_links(animals, tmp_path, small_shards, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    whole = prepare_folder(animals, tmp_path / "whole")
    monkeypatch.setattr(os, "link", refuse)
    assert_same_copy(prepare_folder(animals, tmp_path / "prepared"), whole)


@pytest.mark.fast
def test_flac_holds_the_same_clips_in_fewer_bytes(animals, tmp_path):
    smooth = np.cumsum(noise(160000))
    for kind in ("cat", "dog"):
        soundfile.write(animals / kind / "0.wav", smooth / np.abs(smooth).max(), 8000)
    pcm = prepare_folder(animals, tmp_path / "prepared", folds=2)
    flac = prepare_folder(animals, tmp_path / "prepared", folds=2, storage="flac")
    assert flac.folder != pcm.folder
    for split in pcm.splits:
        assert flac.fingerprint(split) == pcm.fingerprint(split)
        for one, other in zip(flac.source(split), pcm.source(split), strict=True):
            np.testing.assert_array_equal(one["audio"], other["audio"], strict=True)
    sizes = [sum(f.stat().st_size for f in copy.folder.glob("*.array_record*")) for copy in (flac, pcm)]
    assert sizes[0] < sizes[1]
    with pytest.raises(DataError, match=r"config.prepare.storage='mp3' must be one of pcm, flac"):
        prepare_folder(animals, tmp_path / "prepared", storage="mp3")


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
    assert len(list((tmp_path / "prepared" / "folder").glob("*/2.0.0"))) == 1
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

    monkeypatch.setattr(Recipe, "convert", full)
    with pytest.raises(DataError, match=r"No space left.*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "prepared")
    monkeypatch.undo()
    assert len(prepare_folder(animals, tmp_path / "prepared").source("fold1")) == 4


def test_prepared_dir_that_cannot_be_made(animals, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .*--config.prepared_dir"):
        prepare_folder(animals, tmp_path / "file" / "prepared")


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, os.strerror(number)) for number in (errno.EACCES, errno.EIO, errno.ESTALE)),
        MemoryError(),
    ],
    ids=["permission", "input_output", "stale", "memory"],
)
def test_a_file_that_cannot_be_read_now(animals, tmp_path, small_shards, monkeypatch, decoded, error):
    """It says nothing of the clip, so the run stops; mended, it goes on, and the clip is there."""
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


def test_what_was_rejected_is_tried_again(animals, tmp_path, small_shards, monkeypatch, decoded):
    """Where too much was; the shards in which nothing was rejected are kept."""
    decode = audio.decode

    def refuse(source, **options):
        if source == animals / "cat" / "3.wav":
            raise audio.AudioError("not decodable: by this version")
        return decode(source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", refuse)
        with pytest.raises(DataError, match=r"1 of 4 files .*by this version"):
            prepare_folder(animals, tmp_path / "prepared")
    decoded.clear()
    prepared = prepare_folder(animals, tmp_path / "prepared")
    assert not prepared.manifest("+".join(prepared.splits)).rejected
    assert "cat/3.wav" in decoded
    assert len(decoded) in (1, 3)


@pytest.mark.fast
def test_too_much_that_is_rejected_unheard_is_said_before_anything_is_converted(animals, tmp_path, decoded):
    rows = [f"{kind}/{i}.wav,{kind},s\n" for kind in ("cat", "dog") for i in range(11)]  # 10 are there
    (animals / "a.csv").write_text("filename,label,split\n" + "".join(rows))
    with pytest.raises(DataError, match=r"2 of 22 files .*cat/10.wav: no sound file.*listed in (.*): mend"):
        prepare_folder(animals, tmp_path / "prepared")
    assert not decoded
    (listed,) = (tmp_path / "prepared").rglob("s.rejected.jsonl")
    assert listed.read_text().count("no sound file") == 2
    prepare_folder(animals, tmp_path / "prepared", max_failed_share=0.1)
    assert not listed.exists()


def test_a_table_of_sound_that_vanishes(animals, tmp_path, monkeypatch):
    """Reading what is there is not writing the copy: no disk is to be freed."""

    def gone(self):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(animals / "a.tar"))

    monkeypatch.setattr(AudioBuilder, "listing", property(gone))
    with pytest.raises(DataError, match=r"cannot read .*a.tar: No such file or directory: mend"):
        prepare_folder(animals, tmp_path / "prepared")


@pytest.mark.fast
@pytest.mark.parametrize("shown", [True, False])
def test_tfds_is_silenced_and_left_as_it_was(shown, capsys):
    before = tqdm_utils._active
    try:
        tfds.display_progress_bar(shown)
        with generate.quiet_tfds():
            assert not tqdm_utils._active
            print("of the caller")
        assert tqdm_utils._active == shown
        assert capsys.readouterr().out == "of the caller\n"
    finally:
        tfds.display_progress_bar(before)


@pytest.mark.fast
def test_splits_that_there_are_not_are_said_before_anything_is_converted(animals, tmp_path, decoded):
    splits = {"train": "fold1+fold6", "test": "fold2"}
    with pytest.raises(
        DataError, match=r"config.splits: unknown split 'fold6': the splits are fold1, "
    ) as caught:
        prepare_folder(animals, tmp_path / "prepared", splits=splits)
    one_line(caught)
    assert not decoded
    prepare_folder(animals, tmp_path / "prepared")
    with pytest.raises(DataError, match=r"config.splits: unknown split 'fold6'"):  # of a finished copy too
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
        ({"test": "fold1"}, []),  # an evaluation
        (None, []),
    ],
)
def test_splits_that_are_unused_or_used_twice(animals, tmp_path, capsys, splits, says):
    prepare_folder(animals, tmp_path / "prepared", splits=splits)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(says)
    for line, pattern in zip(lines, says, strict=True):
        assert re.match(pattern, line)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("cut", "says"),
    [
        ("fold1.*array_record*", r"split 'fold1' has \d+ of \d+ bytes"),
        ("fold1.manifest.jsonl", r"fold1.manifest.jsonl breaks off"),
        ("fold2.manifest.jsonl", r"fold2.manifest.jsonl has 3 of 4 clips"),
    ],
)
def test_a_copy_that_was_copied_by_half(animals, tmp_path, cut, says):
    folder = prepare_folder(animals, tmp_path / "prepared").folder
    (path,) = (path for path in folder.glob("*") if fnmatch.fnmatch(path.name, f"*{cut}"))
    content = path.read_bytes()
    path.write_bytes(content[: content[:-1].rindex(b"\n") + 1] if "fold2" in cut else content[:-20])
    with pytest.raises(DataError, match=rf"damaged, {says}: delete it, or copy it again") as caught:
        prepare_folder(animals, tmp_path / "prepared")
    one_line(caught)


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
    with pytest.raises(DataError, match=r"config.dataset.seed=-1 must not be negative"):
        prepare("quickstart", prepared_dir=str(tmp_path), sample_rate=8000, seed=-1, progress=False)
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


@pytest.mark.fast
def test_a_folder_is_read_under_its_own_name_not_a_links(animals, capsys):
    (animals / "a_kitten").symlink_to(animals / "cat")
    (animals / "kitten").symlink_to(animals / "cat")
    classes = {name.split("/")[0] for name in scan(animals)}
    assert classes == {"cat", "dog"}
    said = capsys.readouterr().err
    assert "2 links in" in said
    assert "'a_kitten' is left out, 'cat' is read" in said
    assert said.count("\n") == 1


@pytest.mark.fast
@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u200d"])
def test_names_that_people_give(animals, space):
    name = f"cat/a{space}b.wav"
    (animals / "cat" / "0.wav").rename(animals / name)
    assert name in scan(animals)


@pytest.mark.fast
@pytest.mark.parametrize("end", ["\n", "\x7f", "\x85", "\u2028", "\u2029", "\udcff"])
def test_names_that_no_line_can_hold(animals, end):
    (animals / "cat" / "0.wav").rename(animals / "cat" / f"a{end}b.wav")
    with pytest.raises(DataError, match="not printable text: rename it") as caught:
        scan(animals)
    one_line(caught)


def test_the_same_bytes_in_two_splits(write_sounds, tmp_path, capsys):
    folder = write_sounds({"train/cat/a.wav": 100, "train/dog/b.wav": 100, "test/cat/c.wav": 100})
    prepare_folder(folder, tmp_path / "p")
    assert capsys.readouterr().err == ""
    for copy in ("train/cat/d.wav", "train/dog/e.wav", "test/dog/f.wav"):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "train/cat/a.wav", folder / copy)
    shutil.copy(folder / "train/dog/b.wav", folder / "test/cat/g.wav")
    for run in range(2):  # made, then taken as it is
        prepared = prepare_folder(folder, tmp_path / "p")
        listed = [json.loads(line) for line in (prepared.folder / "twins.jsonl").read_text().splitlines()]
        assert [(twin["id"], twin["reason"]) for twin in listed] == [
            ("train/cat/a.wav", "in train, the same bytes as 'test/dog/f.wav' in test"),
            ("train/cat/d.wav", "in train, the same bytes as 'test/dog/f.wav' in test"),
            ("train/dog/b.wav", "in train, the same bytes as 'test/cat/g.wav' in test"),
            ("train/dog/e.wav", "in train, the same bytes as 'test/dog/f.wav' in test"),
        ], run
        said = capsys.readouterr().err
        assert (
            "warning: folder: 4 clips are byte for byte in another split too, the first is 'train/cat/a"
            in said
        )
        assert said.count("\n") == 1

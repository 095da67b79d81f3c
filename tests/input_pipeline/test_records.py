"""Clips are read from any number of files, whatever the limit on open files, by several threads."""

import dataclasses
import gc
import os
import pickle
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from input_pipeline import eval_batches, prepare, shards
from input_pipeline.errors import DataError
from tests.input_pipeline.conftest import run

FILES = 120

# Prepares FILES clips as so many files, then trains and evaluates under limits on open files, soft and hard.
LIMITED = """
    import os, resource, sys
    from input_pipeline import eval_batches, prepare, train_batches

    if __name__ == "__main__":
        root, soft, hard = sys.argv[1], *map(int, sys.argv[2:])
        prepared = prepare(
            "quickstart", prepared_dir=root, sample_rate=1000, train_clips=120, test_clips=2, progress=False
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        train = train_batches(prepared, "train", crop_samples=500, batch_size=40, seed=0, num_threads=16)
        seen = [next(train)["audio"].tobytes() for _ in range(6)]
        train.close()
        scored = eval_batches(prepared, "train", crop_samples=500, batch_size=40)
        assert sum(batch["mask"].sum() for batch in scored) >= 120
        print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(set(seen)))
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A prepared copy with one clip in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CLIPS_PER_SHARD", 1)
        return prepare(
            "quickstart",
            prepared_dir=str(tmp_path_factory.mktemp("many")),
            sample_rate=1000,
            train_clips=FILES,
            test_clips=2,
            progress=False,
        )


def open_files(folder) -> int:
    """Return how many files of a folder this process has open."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return sum(os.path.realpath(link).startswith(str(folder)) for link in links)


# Under the second limits the soft one can be raised far enough for all files; under the first it cannot.
@pytest.mark.parametrize(("soft", "hard", "ends"), [(64, 64, 64), (64, 2000, 4 * FILES)])
def test_more_files_than_may_be_open(many, soft, hard, ends):
    process = run(LIMITED, many.folder.parents[2], soft, hard)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert said.split() == [str(ends), "6"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_at_most_half_of_the_limit_is_open(many, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 60))
    read_in_threads(many)
    gc.collect()
    assert open_files(many.folder) == 0


def read_in_threads(many) -> None:
    clips = many.source("train")
    expected = [clip["id"] for clip in clips]
    assert len(set(expected)) == FILES
    assert open_files(many.folder) == 30
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(FILES), 5)).tolist()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda index: clips[index]["id"], order)) == [expected[i] for i in order]
    assert 20 < open_files(many.folder) <= 30  # a file that two threads open at once counts twice
    other = many.source("train")  # shares the same half
    assert [clip["id"] for clip in other] == expected
    assert open_files(many.folder) == 30


def test_clips_keep_their_order(many):
    clips = many.source("train+test")
    rows = many.manifest("train+test").rows
    assert [clip["id"].decode() for clip in clips] == [row.id for row in rows]
    for index in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"there is no record {index}: there are {len(rows)}"):
            clips[index]


def test_clips_are_indexed_like_any_sequence(many):
    clips = many.source("train")
    ids = [clip["id"] for clip in clips]
    assert clips[-1]["id"] == ids[-1]
    assert clips[-FILES]["id"] == ids[0]
    for part in (slice(0, 2), slice(-3, None), slice(None, None, -50), slice(5, 5)):
        assert [clip["id"] for clip in clips[part]] == ids[part]
    assert clips[2:4][0]["audio"].dtype == np.int16


def test_clips_are_pickled_for_other_processes(many):
    """Loaders that start new processes, such as torch's with spawn, send the source to each."""
    clips = many.source("train")
    first = clips[0]
    again = pickle.loads(pickle.dumps(clips))
    assert len(again) == FILES
    np.testing.assert_array_equal(again[0]["audio"], first["audio"])
    assert [clip["id"] for clip in again] == [clip["id"] for clip in clips]


def test_an_unknown_split_is_refused_without_naming_a_config(many):
    for asked in (many.source, many.manifest, many.targets):
        with pytest.raises(DataError, match=r"^unknown split 'val': the splits are train, test"):
            asked("val")


def test_a_damaged_record_is_one_line_in_the_loader(many, tmp_path):
    """A bit that a disk lost fails the checksum of a record, and only when a batch needs it."""
    copy = dataclasses.replace(many, folder=shutil.copytree(many.folder, tmp_path / "copy"))
    path = next(copy.folder.glob("*test.array_record-00001*"))
    content = bytearray(path.read_bytes())
    content[500] ^= 1  # of the sound: the header of a file has 64 bytes, that of a chunk 40
    path.write_bytes(content)
    batches = eval_batches(copy, "test", crop_samples=500, batch_size=2)
    with pytest.raises(DataError, match=rf"record 0 of {path} cannot be read .*hash mismatch.*copy it again"):
        list(batches)
    batches.close()

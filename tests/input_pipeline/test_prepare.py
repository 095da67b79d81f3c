"""Preparation: reuse, changes of the data, workers, and competing processes."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm_utils

from input_pipeline import DataError, generate
from tests.input_pipeline.conftest import assert_same_copy, noise, prepare_folder, run


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


def test_copies_of_earlier_versions_are_found(animals, tmp_path):
    """Their names are pinned: under another name every data set would be prepared again."""
    for file in animals.rglob("*.wav"):
        os.utime(file, ns=(0, 10**18))
    (animals / "labels.csv").write_text("filename,label\ncat/0.wav,cat\ndog/0.wav,dog\n")
    options = {"folds": 2, "max_seconds": 5.0, "storage": "flac"}
    prepared = prepare_folder(animals, tmp_path / "prepared", **options)
    name = "filename_column-filename_folds-2_8000hz_95eb3beb84f5"
    assert prepared.folder == tmp_path / "prepared" / "folder" / name / "3.0.0"


def test_workers_change_nothing(animals, tmp_path, small_shards):
    (animals / "dog" / "3.wav").write_bytes(b"not a sound")
    options = {"max_failed_share": 0.5}
    copies = [prepare_folder(animals, tmp_path / str(n), workers=n, **options) for n in (1, 2, 3)]
    for copy in copies[1:]:
        assert_same_copy(copy, copies[0])
        rejected = [source for split in copy.splits for source in copy.manifest(split).rejected]
        assert [source.id for source in rejected] == ["dog/3.wav"]


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


def test_concurrent_processes_make_one_copy(animals, tmp_path):
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
    assert len(list((tmp_path / "prepared" / "folder").glob("*/3.0.0"))) == 1
    assert not list((tmp_path / "prepared").rglob("incomplete.*"))


def test_neither_tensorflow_nor_rann_jax_is_imported(tmp_path):
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
    assert out == ""  # TFDS would print to stdout if it could
    assert "preparing quickstart: 100%" in err
    assert "clips/s" in err
    assert "WARNING" not in err


@pytest.mark.fast
@pytest.mark.parametrize("shown", [True, False])
def test_tfds_is_silenced_and_then_restored(shown, capsys):
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

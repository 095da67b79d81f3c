"""A finished copy that data_dir names is used without its source files, or refused if it is the wrong one."""

import json
import shutil

import pytest

from input_pipeline import DataError, Prepared, source, survey
from input_pipeline.preparation import find_prepared
from tests.input_pipeline.conftest import (
    assert_same_copy,
    one_line,
    prepare_folder,
    prepare_quietly,
)

pytestmark = pytest.mark.fast


@pytest.fixture
def moved(animals, tmp_path) -> tuple[Prepared, Prepared]:
    """A copy, and the same after it was moved to another host, where there are no source files."""
    made = prepare_folder(animals, tmp_path / "prepared", folds=4, max_seconds=5.0)
    place = tmp_path / "local disk"
    shutil.copytree(made.folder, place)
    shutil.rmtree(animals)
    return made, Prepared(made.name, made.labels, made.sample_rate, made.splits, place)


def use(folder, root, **options):
    return prepare_folder(folder, root, **{"folds": 4, "max_seconds": 5.0, **options})


def test_a_moved_copy_is_used_as_it_is(moved, tmp_path, monkeypatch, decoded):
    made, there = moved
    monkeypatch.setattr(source, "scan", lambda *_: pytest.fail("the folder was scanned"))
    used = use(there.folder, tmp_path / "none", splits={"train": "fold1+fold2", "test": "fold4"})
    assert used == there
    assert_same_copy(used, made)
    assert len(used.source("fold1")) == len(made.source("fold1"))
    assert used.source("fold1")[0]["id"] == made.source("fold1")[0]["id"]
    assert not (tmp_path / "none").exists()
    assert use(there.folder, tmp_path / "none", storage="flac", workers=3) == there  # the same clips


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sample_rate": 4000}, "was made with config.sample_rate=8000, but it is 4000 now"),
        ({"folds": 5}, "was made with config.dataset.folds=4, but it is 5 now"),
        ({"csv": "labels.csv"}, "was made with config.dataset.csv='', but it is 'labels.csv' now"),
        ({"max_seconds": 9.0}, "was made with config.prepare.max_seconds=5.0, but it is 9.0 now"),
        ({"splits": {"train": "fold5"}}, "fold5"),
        ({"fold": 1}, "config.dataset.fold: data set 'folder' has no such option"),
    ],
)
def test_a_copy_that_was_made_otherwise_is_refused(moved, tmp_path, options, says):
    with pytest.raises(DataError) as caught:
        use(moved[1].folder, tmp_path / "none", **options)
    assert says in one_line(caught)


def test_a_copy_of_another_data_set_or_version_is_refused(moved, tmp_path):
    folder = moved[1].folder
    with pytest.raises(DataError, match=r"is of data set 'folder', but config\.dataset\.name='esc50'"):
        prepare_quietly("esc50", folder, tmp_path / "none")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"3.0.0"', '"2.0.0"'))
    with pytest.raises(DataError, match=r"version 2\.0\.0 of data set 'folder', which is now 3\.0\.0"):
        use(folder, tmp_path / "none")


@pytest.mark.parametrize("lost", ["dataset_info.json", "metadata.json", "fold2.manifest.jsonl"])
def test_a_copy_that_was_moved_in_part_is_refused(moved, tmp_path, lost):
    (moved[1].folder / lost).unlink()
    with pytest.raises(DataError, match=f"is damaged .*{lost}.*copy it again"):
        use(moved[1].folder, tmp_path / "none")


def test_copies_of_earlier_versions_say_less(moved, tmp_path):
    """They do not say how long a recording could be, and lack options that came later."""
    record = moved[1].folder / "metadata.json"
    said = json.loads(record.read_text())
    del said["max_seconds"], said["dealt"], said["options"]["split_column"]
    record.write_text(json.dumps(said))
    assert use(moved[1].folder, tmp_path / "none", max_seconds=9.0) == moved[1]
    assert not survey("folder", data_dir=str(moved[1].folder), folds=4).dealt


def test_sources_with_such_file_names_are_no_copy(animals, tmp_path):
    for name in ("dataset_info.json", "features.json"):
        (animals / name).write_text("{}")
    assert prepare_folder(animals, tmp_path / "prepared").folder != animals


def test_a_survey_of_a_copy_is_that_of_its_source(animals, tmp_path):
    (animals / "labels.csv").write_text(
        "filename,label\ncat/0.wav,cat\ndog/0.wav,dog;cat\ndog/1.wav,dog\ncat/1.wav,cat\n"
    )
    for folds in (2, 4):
        made = prepare_folder(animals, tmp_path / "prepared", folds=folds)
        found, again = (survey("folder", data_dir=str(f), folds=folds) for f in (animals, made.folder))
        assert found == again
        assert again.several_labels
        assert again.splits_from == f"config.dataset.folds={folds}"


def test_a_named_copy_is_found_by_its_content(moved):
    made, there = moved
    place = {"sample_rate": 8000, "prepared_dir": "/none", "data_dir": str(there.folder)}
    assert find_prepared("folder", "fold1", made.fingerprint("fold1"), **place) == there
    assert find_prepared("folder", "fold1", made.fingerprint("fold2"), **place) is None
    place["sample_rate"] = 4000
    assert find_prepared("folder", "fold1", made.fingerprint("fold1"), **place) is None


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("dataset_info.json", '"numBytes": "', '"numBytes": "x'),
        ("dataset_info.json", "{", "[" * 100_000),
        ("features.json", "{", ""),
        ("features.json", "tensorflow_datasets", "tensorfl0w_datasets"),
        ("labels.labels.txt", "cat", "cut"),
        ("metadata.json", '"sample_rate"', '"sample_rat3"'),
        ("metadata.json", '"options"', '"0ptions"'),
        ("fold1.manifest.jsonl", '["cat"]', '["cut"]'),
        ("fold1.manifest.jsonl", '["cat"]', '[["cat"]]'),
        ("fold1.manifest.jsonl", '["cat"]', '[1, "x"]'),
        ("fold1.manifest.jsonl", '"samples": 800', '"samples": "800"'),
        ("fold1.manifest.jsonl", '"samples": 800', '"samples": ' + "[" * 100_000),
        ("unlisted.jsonl", "", "{"),
        ("twins.jsonl", "", "[]\n"),
    ],
    ids=lambda text: "".join(filter(str.isalnum, text))[:20],
)
def test_a_damaged_copy_is_refused_in_one_line(moved, tmp_path, file, before, after):
    path = moved[1].folder / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=r"is damaged .*delete it, or copy it again") as caught:
        use(moved[1].folder, tmp_path / "none", splits={"train": "fold1", "test": "fold4"})
    assert str(moved[1].folder) in one_line(caught)
    assert find_prepared("folder", "fold1", "", sample_rate=8000, data_dir=str(moved[1].folder)) is None

"""Finding tables and sounds among the source files, by name or by the end of a path."""

from pathlib import Path

import pytest

from input_pipeline import DataError
from input_pipeline.clip import Excerpt, Recording
from input_pipeline.datasets.source_files import SourceFiles
from input_pipeline.source import Stamp

pytestmark = pytest.mark.fast

FOLDER = Path("/sounds")


def holding(*files: str) -> SourceFiles:
    return SourceFiles(FOLDER, dict.fromkeys(files, Stamp(1, 0)))


def test_sounds_are_told_from_tables():
    assert holding("a.csv", "b/c.WAV", "d.txt", "e.flac").sounds == ("b/c.WAV", "e.flac")


def test_a_table_is_found_at_any_depth_but_not_twice():
    source = holding("meta/list.csv", "one/twice.csv", "two/twice.csv", "other-list.csv")
    assert source.require("list.csv") == source.find("list.csv") == FOLDER / "meta/list.csv"
    assert source.find("none.csv") is None
    with pytest.raises(DataError, match=r"config.data_dir: /sounds lacks none.csv: add the official list"):
        source.require("none.csv")
    with pytest.raises(DataError, match=r"both one/twice.csv and two/twice.csv exist: remove one"):
        source.find("twice.csv")


def test_a_clip_is_found_by_the_end_of_its_path_whatever_its_suffix():
    source = holding("deep/train/dog/1.flac", "deep/train/cat/1.flac", "deep/train/cat/1.2.ogg", "9.csv")
    clip = source.clip("x", ("cat",), "train/cat/1.wav")
    assert (clip.id, clip.labels, clip.problem) == ("x", ("cat",), "")
    assert clip.sound == Recording(FOLDER / "deep/train/cat/1.flac")
    part = source.clip("x", (), "cat/1", part=(1.0, 2.5)).sound
    assert part == Excerpt(Recording(FOLDER / "deep/train/cat/1.flac"), 1.0, 2.5)
    assert source.clip("x", (), "1.2").sound == Recording(FOLDER / "deep/train/cat/1.2.ogg")
    assert source.clip("x", (), "at/1.wav").problem == "no sound file at/1.wav"
    assert source.clip("x", (), "9.csv").problem == "no sound file 9.csv"
    several = source.clip("x", (), "1.wav").problem
    assert several == "several sound files: deep/train/dog/1.flac, deep/train/cat/1.flac"

"""Tiny data sets of noise on disk, in the layouts that users have, and helpers to prepare and check them."""

import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from input_pipeline import Prepared, prepare, shards
from input_pipeline.shards import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
AUDIOSET_CLASSES = "class_labels_indices.csv"


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


def encoded(samples: np.ndarray, rate: int = 8000, container: str = "WAV", **options) -> bytes:
    """Return the bytes of a sound file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, **options)
    return file.getvalue()


@pytest.fixture
def write_sounds(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """A function that writes 8 kHz noise into a folder, given each file's name and length in samples."""

    def write(lengths: Mapping[str, int]) -> Path:
        folder = tmp_path / "sounds"
        for seed, (name, samples) in enumerate(lengths.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, noise(samples, seed), 8000)
        return folder

    return write


@pytest.fixture
def animals(write_sounds) -> Path:
    """A folder with ten clips each of cats and dogs, 0.1 s long, in one subfolder per class."""
    return write_sounds({f"{kind}/{i}.wav": 800 for kind in ("cat", "dog") for i in range(10)})


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Prepared:
    """A small prepared quickstart set: clips of 8000 to 16000 samples at 8 kHz."""
    root = str(tmp_path_factory.mktemp("prepared"))
    return prepare(
        "quickstart",
        prepared_dir=root,
        sample_rate=8000,
        train_clips=50,
        test_clips=13,
        progress=False,
    )


def prepare_quietly(name, folder, root, **options):
    options = {"sample_rate": 8000, "progress": False, **options}
    return prepare(name, data_dir=str(folder), prepared_dir=str(root), **options)


def prepare_folder(folder, root, **options):
    return prepare_quietly("folder", folder, root, **options)


def prepare_audioset(folder, root, max_failed_share=0.5):
    return prepare_quietly("audioset", folder, root, sample_rate=16000, max_failed_share=max_failed_share)


def ids(prepared, split):
    return [row.id for row in prepared.manifest(split).rows]


def assert_left_out(prepared, files, capsys):
    """Check that files in no split are listed beside the copy and reported on stderr."""
    listed = (prepared.folder / "unlisted.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in listed] == [{"id": file, "reason": "in no split"} for file in files]
    said = capsys.readouterr().err
    expected = (
        f"{len(files)} sounds of the folder are in no split and were left out; the first is {files[0]!r}"
    )
    assert f"note: {prepared.name}: {expected}, listed in {prepared.folder}/unlisted.jsonl" in said


# Warnings are errors, except the one that TFDS raises with the protobuf that Apache Beam requires.
STRICT = ("-W", "error", "-W", "ignore:label() is deprecated:DeprecationWarning")


def run(script: str, *arguments: object, **options) -> subprocess.Popen:
    """Start Python on a script, with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, *STRICT, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def decoded(monkeypatch):
    """The ids of the clips decoded so far, in order."""
    ids = []
    original = Recipe.convert
    monkeypatch.setattr(Recipe, "convert", lambda self, clip: (ids.append(clip.id), original(self, clip))[1])
    return ids


@pytest.fixture
def small_shards(monkeypatch):
    """Put three clips in a shard, so that each fold of `animals` has two shards: three clips and one."""
    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 3)


def assert_same_copy(one, other):
    """Compare all files byte for byte, except those in which TFDS writes the copy's own path."""
    files = {path.name for path in one.folder.iterdir()}
    assert files == {path.name for path in other.folder.iterdir()}
    for name in files - {"dataset_info.json", "metadata.json"}:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    for split in one.splits:
        assert one.fingerprint(split) == other.fingerprint(split)


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message

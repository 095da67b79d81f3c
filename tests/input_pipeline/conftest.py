"""Tiny data sets on disk: noise bursts in the layouts that users have."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from input_pipeline import Prepared, prepare


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


@pytest.fixture
def write_sounds(tmp_path: Path) -> Callable[[Mapping[str, int]], Path]:
    """Writes 8 kHz noise into a folder: name and length in samples of each file."""

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
    """Ten cats and ten dogs of 0.1 s, a folder each."""
    return write_sounds({f"{kind}/{i}.wav": 800 for kind in ("cat", "dog") for i in range(10)})


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Prepared:
    """A small quickstart set: clips of 8000 to 16000 samples at 8 kHz."""
    root = str(tmp_path_factory.mktemp("prepared"))
    return prepare(
        "quickstart",
        prepared_dir=root,
        sample_rate=8000,
        train_clips=50,
        test_clips=13,
        progress=False,
    )

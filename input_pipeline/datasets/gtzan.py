"""GTZAN: ten genres of music, a hundred excerpts of 30 s each."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.folds import deal_out
from input_pipeline.source import read_lines

_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
_LISTS = {"train": "train_filtered.txt", "valid": "valid_filtered.txt", "test": "test_filtered.txt"}


class Gtzan(AudioBuilder):
    """1000 clips, 10 genres, named `genres/blues/blues.00000.au` (or .wav) as published.

    No split is official. If the fault-filtered lists (C. Kereliuk, B. Sturm, J. Larsen, Deep Learning and
    Music Adversaries, 2015; github.com/coreyker/dnn-mgr, gtzan/) are in the folder, they give the splits
    train, valid and test, which have no artists in common. Otherwise (ours) each genre is divided among
    `folds` splits, fold1, fold2, ... An artist may then be in several folds, so scores are too good. Files
    with other names are left out. (TFDS has a builder of this name, which needs TensorFlow and accepts only
    .wav.)
    """

    VERSION = tfds.core.Version("2.0.0")  # 1.0.0 had other folds
    OPTIONS: ClassVar[dict[str, Any]] = {"folds": 10}
    ALSO_READS = frozenset({".txt"})
    HOMEPAGE = "http://marsyas.info/downloads/datasets.html"
    LICENSE = "None stated; for research"
    CITATION = (
        "G. Tzanetakis, P. Cook. Musical genre classification of audio signals. IEEE Transactions on Speech "
        "and Audio Processing 10(5), 2002. DOI 10.1109/TSA.2002.800560"
    )

    def label_names(self) -> Sequence[str]:
        """The genres in alphabetical order."""
        return _GENRES

    @property
    def dealt(self) -> bool:
        """Whether the fault-filtered lists are missing."""
        return not any(self.source.find(name) for name in _LISTS.values())

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train, valid, test; or folds."""
        if not self.dealt:
            return {
                split: [self._clip(line) for line in read_lines(self.source.require(name))]
                for split, name in _LISTS.items()
            }
        clips = (self._clip(file) for file in self.source.sounds)
        return deal_out([clip for clip in clips if clip.labels], self.builder_config.options["folds"])

    def _clip(self, file: str) -> Clip:
        name = PurePosixPath(file).stem
        genre = name.partition(".")[0]
        if genre not in _GENRES:
            return Clip(name, (), problem="not named as in GTZAN (blues.00000)")
        return self.source.clip(name, (genre,), name)

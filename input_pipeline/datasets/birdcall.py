"""Cornell Birdcall Identification: recordings of Xeno-canto, 264 species of birds."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.folds import deal_out
from input_pipeline.source import read_table


class Birdcall(AudioBuilder):
    """21375 recordings, each labelled with the eBird code of one species; mp3 of any length, often minutes.

    Layout as published (Kaggle, birdsong-recognition): `train.csv` with the columns ebird_code and
    filename, the sound in `train_audio/EBIRD_CODE/`. The labels of the test set were never published.
    Instead (ours) the recordings of each species are divided among `folds` splits, fold1, fold2, ...
    """

    VERSION = tfds.core.Version("2.0.0")  # 1.0.0 had other folds
    OPTIONS: ClassVar[dict[str, Any]] = {"folds": 5}
    HOMEPAGE = "https://www.kaggle.com/c/birdsong-recognition"
    LICENSE = "Creative Commons, one for each recording (column license), many non-commercial"
    CITATION = (
        "A. Howard, H. Klinck, S. Dane, S. Kahl, T. Denton. Cornell Birdcall Identification. Kaggle, 2020."
    )

    def label_names(self) -> Sequence[str]:
        """The eBird codes that occur, in alphabetical order."""
        return sorted({row["ebird_code"] for row in self._rows})

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits fold1, fold2, ..."""
        clips = [
            self.source.clip(file, (code,), f"train_audio/{code}/{file}")
            for code, file in ((row["ebird_code"], row["filename"]) for row in self._rows)
        ]
        return deal_out(clips, self.builder_config.options["folds"])

    @functools.cached_property
    def _rows(self) -> list[dict[str, str]]:
        return read_table(self.source.require("train.csv"), ("ebird_code", "filename"))

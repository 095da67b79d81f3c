"""DCASE 2019, task 1A: TAU Urban Acoustic Scenes 2019, ten acoustic scenes in European cities."""

from collections.abc import Mapping, Sequence

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.source import read_table

# Lists of the official cross-validation setup; fold1_test.csv is fold1_evaluate.csv without the scenes.
_LISTS = {"train": "fold1_train.csv", "test": "fold1_evaluate.csv"}


class Dcase2019Task1a(AudioBuilder):
    """Clips of 10 s, 48 kHz, stereo; the official split of the development set, train and test.

    Layout as published: `audio/airport-barcelona-0-0-a.wav`, and `evaluation_setup/fold1_train.csv` and
    `fold1_evaluate.csv`, tab-separated tables of file names. The suffixes of the names are ignored.
    """

    HOMEPAGE = "https://zenodo.org/record/2589280"
    LICENSE = "Tampere University's own: non-commercial, scientific use"
    CITATION = (
        "A. Mesaros, T. Heittola, T. Virtanen. A multi-device dataset for urban acoustic scene "
        "classification. DCASE 2018 Workshop. Data: DOI 10.5281/zenodo.2589280"
    )

    def label_names(self) -> Sequence[str]:
        """The scenes in alphabetical order."""
        return [
            "airport",
            "bus",
            "metro",
            "metro_station",
            "park",
            "public_square",
            "shopping_mall",
            "street_pedestrian",
            "street_traffic",
            "tram",
        ]

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train and test."""
        return {
            split: [
                self.source.clip(row["filename"], (row["scene_label"],), row["filename"])
                for row in read_table(self.source.require(name), ("filename", "scene_label"), delimiters="\t")
            ]
            for split, name in _LISTS.items()
        }

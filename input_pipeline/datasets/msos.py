"""Making Sense of Sounds: five broad categories that people sort sounds into."""

from collections.abc import Mapping, Sequence

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.source import read_table

_LISTS = {
    "train": ("Logsheet_Development.csv", "Development/{Category}/{File}"),
    "test": ("Logsheet_EvaluationMaster.csv", "Evaluation/{File}"),
}


class Msos(AudioBuilder):
    """Clips of 5 s, 44.1 kHz; the official split, train (development, 1500) and test (evaluation, 500).

    Layout as published: `Logsheet_Development.csv` and `Logsheet_EvaluationMaster.csv` with the columns
    Category, Event and File, the sound in `Development/CATEGORY/` and `Evaluation/`.
    """

    HOMEPAGE = "https://cvssp.org/projects/making_sense_of_sounds/site/challenge/"
    LICENSE = "Of its sources, most of them Freesound: see the data set's notes"
    CITATION = (
        "C. Kroos et al. Generalisation in environmental sound classification: the 'Making Sense of Sounds' "
        "data set and challenge. ICASSP 2019"
    )

    def label_names(self) -> Sequence[str]:
        """The categories in alphabetical order."""
        return ["Effects", "Human", "Music", "Nature", "Urban"]

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train and test."""
        return {
            split: [
                self.source.clip(place.format_map(row), (row["Category"],), place.format_map(row))
                for row in read_table(self.source.require(table), ("Category", "File"))
            ]
            for split, (table, place) in _LISTS.items()
        }

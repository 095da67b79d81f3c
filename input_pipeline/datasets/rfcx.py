"""Rainforest Connection Species Audio Detection: birds and frogs of Puerto Rico, 24 species."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.folds import dealt
from input_pipeline.errors import DataError
from input_pipeline.source import number, read_table

_SPECIES = 24
_MINUTE = 60.0  # length of a recording, seconds


class Rfcx(AudioBuilder):
    """Excerpts of 10 s around each confirmed call in one-minute recordings; several species per excerpt.

    Layout as published (Kaggle, rfcx-species-audio-detection): `train_tp.csv` with the columns
    recording_id, species_id, t_min and t_max in seconds, the sound in `train/RECORDING_ID.flac`, 48 kHz.
    An excerpt lasts `seconds` (ours). Its labels (ours) are all species confirmed in it; unconfirmed ones may
    be audible too. The recordings are divided among `folds` splits (ours), fold1, fold2, ... The labels of
    the test set were never published.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"folds": 5, "seconds": 10.0}
    HOMEPAGE = "https://www.kaggle.com/c/rfcx-species-audio-detection"
    LICENSE = "As the rules of the Kaggle competition say"
    CITATION = (
        "J. LeBien et al. A pipeline for identification of bird and frog species in tropical soundscape "
        "recordings using a convolutional neural network. Ecological Informatics 59, 2020. "
        "DOI 10.1016/j.ecoinf.2020.101113"
    )

    def label_names(self) -> Sequence[str]:
        """The official names, s0 to s23."""
        return [f"s{species}" for species in range(_SPECIES)]

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits fold1, fold2, ..."""
        options, calls = self.builder_config.options, self._calls()
        if not 0 < options["seconds"] <= _MINUTE:
            raise DataError(f"config.dataset.seconds={options['seconds']:g} must be above 0 and at most 60")
        fold_of = dict(
            zip(calls, dealt([(recording, 0) for recording in calls], options["folds"]), strict=True)
        )
        splits: defaultdict[str, list[Clip]] = defaultdict(list)
        for recording, heard in calls.items():
            for start in sorted({_start(call, options["seconds"]) for call in heard}):
                splits[fold_of[recording]].append(self._excerpt(recording, start, heard))
        return dict(sorted(splits.items()))

    def _excerpt(self, recording: str, start: float, heard: Sequence[tuple[float, float, str]]) -> Clip:
        end = start + self.builder_config.options["seconds"]
        labels = sorted({species for first, last, species in heard if first < end and last > start})
        name = f"{recording}_{start:07.4f}"
        return self.source.clip(name, tuple(labels), f"train/{recording}", part=(start, end))

    def _calls(self) -> dict[str, list[tuple[float, float, str]]]:
        """Return start, end and species of the confirmed calls, by recording."""
        path, calls = self.source.require("train_tp.csv"), defaultdict(list)
        for row in read_table(path, ("recording_id", "species_id", "t_min", "t_max")):
            first, last = (number(path, row[key], 0, _MINUTE) for key in ("t_min", "t_max"))
            calls[row["recording_id"]].append((first, last, f"s{row['species_id']}"))
        return dict(calls)


def _start(call: tuple[float, float, str], seconds: float) -> float:
    """Return the start of the excerpt around a call; the excerpt stays inside the recording."""
    middle = (call[0] + call[1]) / 2
    return min(max(0.0, middle - seconds / 2), _MINUTE - seconds)

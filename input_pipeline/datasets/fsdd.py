"""The Free Spoken Digit Dataset: ten digits, six speakers, 8 kHz."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder

_NAME = re.compile(r"(\d)_[A-Za-z]+_(\d+)")


class Fsdd(AudioBuilder):
    """Spoken digits, 3000 clips; the official split holds out takes 0 to 4 for testing.

    The file names are digit_speaker_take: `recordings/7_jackson_32.wav` as published, or in any other folder
    and sound format. Files with other names are left out.
    """

    HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
    LICENSE = "CC BY-SA 4.0"
    CITATION = "Z. Jackson et al. Free Spoken Digit Dataset. DOI 10.5281/zenodo.1342401"

    def label_names(self) -> Sequence[str]:
        """The digits in order."""
        return ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train and test."""
        digits = self.label_names()
        splits: dict[str, list[Clip]] = {"train": [], "test": []}
        for file in self.source.sounds:
            name = PurePosixPath(file).stem
            if fields := _NAME.fullmatch(name):
                digit, take = map(int, fields.groups())
                clip = Clip(name, (digits[digit],), self.source.recording(file))
                splits["test" if take < 5 else "train"].append(clip)
        return splits

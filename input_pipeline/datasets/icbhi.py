"""ICBHI 2017, the Respiratory Sound Database: crackles and wheezes in breathing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.clip import Clip
from input_pipeline.datasets.source import number, read_lines
from input_pipeline.errors import DataError

_SPLIT_FILE = "ICBHI_challenge_train_test.txt"
_LONGEST_SECONDS = 600.0
# By the flags of crackles and wheezes.
_CLASSES = {("0", "0"): "normal", ("1", "0"): "crackle", ("0", "1"): "wheeze", ("1", "1"): "both"}


class Icbhi(AudioBuilder):
    """6898 respiratory cycles of 920 recordings, 4 classes; the official split of recordings, train and test.

    Layout as published: `101_1b1_Al_sc_Meditron.wav` beside `101_1b1_Al_sc_Meditron.txt` (start, end,
    crackles, wheezes of each cycle), and `ICBHI_challenge_train_test.txt`. A clip is a cycle. As in the
    official split, two patients are in both parts.
    """

    ALSO_READS = frozenset({".txt"})
    HOMEPAGE = "https://bhichallenge.med.auth.gr/ICBHI_2017_Challenge"
    LICENSE = "Free for research"
    CITATION = (
        "B. M. Rocha et al. An open access database for the evaluation of respiratory sound classification "
        "algorithms. Physiological Measurement 40(3), 2019. DOI 10.1088/1361-6579/ab03ea"
    )

    def label_names(self) -> Sequence[str]:
        """Normal, crackle, wheeze, both."""
        return list(_CLASSES.values())

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train and test, cycle by cycle."""
        path = self.require(_SPLIT_FILE)
        splits: dict[str, list[Clip]] = {"train": [], "test": []}
        for line in read_lines(path):
            recording, _, split = line.partition("\t")
            if split.strip() not in splits:
                raise DataError(f"{path}: {line!r} is not a recording and its split, train or test")
            splits[split.strip()] += self._cycles(recording.strip())
        return splits

    def _cycles(self, recording: str) -> Iterator[Clip]:
        if self.find(f"{recording}.txt") is None:
            yield Clip(recording, (), problem=f"no annotation {recording}.txt")
            return
        path = self.require(f"{recording}.txt")
        for index, line in enumerate(read_lines(path)):
            start, end, label = _cycle(path, line)
            yield self.clip(f"{recording}_{index:02}", (label,), recording, part=(start, end))


def _cycle(path: Path, line: str) -> tuple[float, float, str]:
    """Start and end in seconds and the class of an annotated cycle."""
    fields = line.split()
    if len(fields) != 4 or tuple(fields[2:]) not in _CLASSES:
        raise DataError(f"{path}: {line!r} is not start, end, crackles, wheezes")
    start, end = (number(path, field, 0, _LONGEST_SECONDS) for field in fields[:2])
    return start, end, _CLASSES[fields[2], fields[3]]

"""ICBHI 2017, the Respiratory Sound Database: crackles and wheezes in breathing."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.errors import DataError
from input_pipeline.source import number, read_lines

_SPLIT_FILE = "ICBHI_challenge_train_test.txt"
_LONGEST_SECONDS = 600.0
# Keys are the flags of crackles and wheezes.
_CLASSES = {("0", "0"): "normal", ("1", "0"): "crackle", ("0", "1"): "wheeze", ("1", "1"): "both"}


class Icbhi(AudioBuilder):
    """6898 respiratory cycles of 920 recordings, 4 classes; the official split of recordings, train and test.

    Layout as published: `101_1b1_Al_sc_Meditron.wav` next to `101_1b1_Al_sc_Meditron.txt` (start, end,
    crackles, wheezes of each cycle), and `ICBHI_challenge_train_test.txt`. A clip is a cycle; 4142 are in
    train, 2756 in test. As in the official split, two patients, 156 and 218, are in both parts. For one
    recording the list names another device than the file, 226_1b1_Pl_sc_Meditron for ..._LittC2SE. The device
    is therefore ignored; no two recordings differ in it alone.
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
        path = self.source.require(_SPLIT_FILE)
        splits: dict[str, list[Clip]] = {"train": [], "test": []}
        for line in read_lines(path):
            recording, _, split = line.partition("\t")
            if split.strip() not in splits:
                raise DataError(f"{path}: {line!r} is not a recording and its split, train or test")
            splits[split.strip()] += self._cycles(recording.strip())
        return splits

    def _cycles(self, listed: str) -> Iterator[Clip]:
        recording = self._annotated.get(_without_device(listed))
        if recording is None:
            yield Clip(listed, (), problem=f"no annotation {listed}.txt")
            return
        path = self.source.require(f"{recording}.txt")
        try:
            cycles = [_cycle(path, line) for line in read_lines(path)]
        except DataError as error:
            yield Clip(listed, (), problem=str(error))
            return
        for index, (start, end, label) in enumerate(cycles):
            yield self.source.clip(f"{recording}_{index:02}", (label,), recording, part=(start, end))

    @functools.cached_property
    def _annotated(self) -> Mapping[str, str]:
        """Recordings with an annotation, by their names without the device."""
        stems = (PurePosixPath(file).stem for file in self.source.files if file.endswith(".txt"))
        return {_without_device(stem): stem for stem in stems}


def _without_device(recording: str) -> str:
    """Return patient, index, chest location and mode: '101_1b1_Al_sc' of '101_1b1_Al_sc_Meditron'."""
    return recording.rpartition("_")[0]


def _cycle(path: Path, line: str) -> tuple[float, float, str]:
    """Return the start and end in seconds and the class of an annotated cycle."""
    fields = line.split()
    if len(fields) != 4 or tuple(fields[2:]) not in _CLASSES:
        raise DataError(f"{path}: {line!r} is not start, end, crackles, wheezes")
    start, end = (number(path, field, 0, _LONGEST_SECONDS) for field in fields[:2])
    return start, end, _CLASSES[fields[2], fields[3]]

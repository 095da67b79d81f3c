"""VoxCeleb1: speaker identification, 1251 speakers in interviews on YouTube."""

import functools
from collections.abc import Mapping, Sequence

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.errors import DataError
from input_pipeline.source import read_lines

_LIST = "iden_split.txt"
_SPLITS = {"1": "train", "2": "valid", "3": "test"}


class Voxceleb(AudioBuilder):
    """153516 utterances of 4 s and more, 16 kHz; the official split for identification: train, valid, test.

    Layout as published: `iden_split.txt`, whose rows are the part (1, 2, 3) and the file, `1
    id10003/na8-QEFmj44/00003.wav`, and the sound under `wav/`. (TFDS has a builder of this name, which needs
    TensorFlow and silently skips missing files.)
    """

    ALSO_READS = frozenset({".txt"})
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
    LICENSE = "CC BY 4.0"
    CITATION = (
        "A. Nagrani, J. S. Chung, A. Zisserman. VoxCeleb: a large-scale speaker identification dataset. "
        "Interspeech 2017. DOI 10.21437/Interspeech.2017-950"
    )

    def label_names(self) -> Sequence[str]:
        """The ids of the speakers, in order."""
        return sorted({file.partition("/")[0] for _, file in self._rows})

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits train, valid and test."""
        splits: dict[str, list[Clip]] = {split: [] for split in _SPLITS.values()}
        for part, file in self._rows:
            name = file.rpartition(".")[0]
            splits[_SPLITS[part]].append(self.source.clip(name, (file.partition("/")[0],), f"wav/{file}"))
        return splits

    @functools.cached_property
    def _rows(self) -> list[tuple[str, str]]:
        path, rows = self.source.require(_LIST), []
        for line in read_lines(path):
            part, _, file = line.partition(" ")
            if part not in _SPLITS or file.count("/") != 2:
                raise DataError(f"{path}: {line!r} is not a part (1 to 3) and a file")
            rows.append((part, file))
        return rows

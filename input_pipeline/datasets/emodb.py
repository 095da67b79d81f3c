"""EmoDB, the Berlin Database of Emotional Speech: ten German sentences in seven emotions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.errors import DataError

# Keys are the initials of the German names: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral.
_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
_SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
# Speaker, sentence, emotion, version.
_NAME = re.compile(rf"({'|'.join(_SPEAKERS)})[ab]\d\d([{''.join(_EMOTIONS)}])[a-z]")


class Emodb(AudioBuilder):
    """535 clips, 7 emotions, 10 speakers; splits fold1, fold2, ... by speaker.

    The file names give speaker and emotion, as published in `wav/03a01Fa.wav`. The folder and the format may
    differ; files with other names are left out.
    There are no official folds. Here (ours) each fold has speakers that no other fold has, in the order of
    their numbers.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"folds": 5}
    HOMEPAGE = "http://emodb.bilderbar.info"
    LICENSE = (
        "CC0 1.0, as its edition by audEERING says (github.com/audeering/emodb); the first one states none"
    )
    CITATION = (
        "F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier, B. Weiss. "
        "A Database of German Emotional Speech. Interspeech 2005. DOI 10.21437/Interspeech.2005-446"
    )

    def label_names(self) -> Sequence[str]:
        """The emotions, anger first, neutral last."""
        return list(_EMOTIONS.values())

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits fold1, fold2, ... of equally many speakers."""
        folds = self.builder_config.options["folds"]
        if folds < 2 or len(_SPEAKERS) % folds:
            raise DataError(f"config.dataset.folds={folds} must divide the 10 speakers: 2, 5 or 10")
        splits: dict[str, list[Clip]] = {f"fold{fold + 1}": [] for fold in range(folds)}
        for file in self.source.sounds:
            name = PurePosixPath(file).stem
            if fields := _NAME.fullmatch(name):
                speaker, emotion = fields.groups()
                fold = _SPEAKERS.index(speaker) * folds // len(_SPEAKERS) + 1
                splits[f"fold{fold}"].append(Clip(name, (_EMOTIONS[emotion],), self.source.recording(file)))
        return splits

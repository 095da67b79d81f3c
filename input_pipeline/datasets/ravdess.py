"""RAVDESS: two sentences spoken by 24 actors in eight emotions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, ClassVar

from input_pipeline.clip import Clip
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.errors import DataError

_ACTORS = 24
# modality-channel-emotion-intensity-statement-repetition-actor; only audio-only (03) speech (01) is used.
_NAME = re.compile(r"03-01-(0[1-8])-0[12]-0[12]-0[12]-(0[1-9]|1[0-9]|2[0-4])")


class Ravdess(AudioBuilder):
    """Audio-only speech, 1440 clips, 8 emotions; splits fold1, fold2, ... by actor.

    The file names give emotion and actor, as published in `Actor_01/03-01-06-01-02-01-12.wav`. The folder and
    the format may differ. Files with other names, including songs and the sound of videos, are left out.
    There are no official folds. Here (ours) each fold has actors that no other fold has, in the order of
    their numbers; each of 4 folds has 6 actors, as many women (even numbers) as men (odd numbers).
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"folds": 4}
    HOMEPAGE = "https://zenodo.org/record/1188976"
    LICENSE = "CC BY-NC-SA 4.0"
    CITATION = (
        "S. R. Livingstone, F. A. Russo. The Ryerson Audio-Visual Database of Emotional Speech and Song "
        "(RAVDESS). PLoS ONE 13(5): e0196391, 2018. DOI 10.1371/journal.pone.0196391"
    )

    def label_names(self) -> Sequence[str]:
        """The emotions in the order of their codes, 01 to 08."""
        return ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits fold1, fold2, ... of equally many actors."""
        folds, emotions = self.builder_config.options["folds"], self.label_names()
        if folds < 2 or _ACTORS % folds:
            raise DataError(
                f"config.dataset.folds={folds} must divide the {_ACTORS} actors: 2, 3, 4, 6, 8, ..."
            )
        splits: dict[str, list[Clip]] = {f"fold{fold + 1}": [] for fold in range(folds)}
        for file in self.source.sounds:
            name = PurePosixPath(file).stem
            if fields := _NAME.fullmatch(name):
                emotion, actor = fields.groups()
                clip = Clip(name, (emotions[int(emotion) - 1],), self.source.recording(file))
                splits[f"fold{(int(actor) - 1) * folds // _ACTORS + 1}"].append(clip)
        return splits

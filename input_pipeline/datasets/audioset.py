"""AudioSet: sound of YouTube videos in 527 classes, several per clip."""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from input_pipeline import audio
from input_pipeline.clip import Clip, Excerpt, Packed, Sound
from input_pipeline.datasets.audioset_lists import class_names, segments
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.hdf5 import Row
from input_pipeline.datasets.packed import READERS, Archives
from input_pipeline.errors import DataError

# The official segment lists. Evaluation comes first: a clip that is listed twice is kept there only, so that
# no network is tested on a clip that it was trained on.
_LISTS = {
    "eval": "eval_segments.csv",
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
}
_CLASSES_FILE = "class_labels_indices.csv"
# Parts of the names of packed files and their folders that tell the split, in the order of the search.
_SPLIT_NAMES = {"eval": "eval", "unbal": "unbalanced", "bal": "balanced"}
_ID_LENGTH = 11  # of every YouTube id; it tells whether the Y in 'YYouTube_id' is a prefix
# A cut segment is longer than its row says by some hundredths of a second, because encoders round up. A whole
# video, whose labels hold for ten seconds only, is longer by much more.
_TOLERANCE_SECONDS = 1.0
_SECONDS = 10.0  # length of a segment that has no row


@dataclass(frozen=True)
class Segment(Sound):
    """A cut-out sound that may be no longer than its row says, seconds."""

    cut: Sound
    seconds: float

    @property
    def file(self) -> Path | None:
        """The file of the cut-out sound."""
        return self.cut.file

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the cut-out sound; AudioError if it is longer than the segment."""
        loaded, sha256 = self.cut.load(max_seconds)
        seconds = len(loaded.samples) / loaded.rate
        if seconds > self.seconds + _TOLERANCE_SECONDS:
            raise audio.AudioError(
                f"{seconds:.1f} s long, but its segment has {self.seconds:g} s: cut the segment out"
            )
        return loaded, sha256


class Audioset(AudioBuilder):
    """Clips of up to 10 s; splits eval, balanced and unbalanced, as far as their lists are in the folder.

    The folder holds class_labels_indices.csv, one or more of the official lists (eval_segments.csv,
    balanced_train_segments.csv, unbalanced_train_segments.csv) and the sound, each at any depth. The sound
    may be files, HDF5 as packed by PANNs or PaSST, or uncompressed tar shards. A clip is the listed segment,
    already cut out, and is named by its YouTube id, `--PJHxphWEs.wav`, or as in PANNs, `Y--PJHxphWEs.wav`.
    Rows whose sound is missing are listed as rejected, as are rows with unknown labels and second rows or
    files of one id. Leave out a list if you do not have its sound. If a split has no list, it consists of the
    HDF5 and tar files with eval, unbal or bal in their paths, with the labels that they hold.

    `classes` is the length of class_labels_indices.csv; set it for your own lists in this layout.
    """

    OPTIONS: ClassVar[dict[str, Any]] = {"classes": 527}
    ALSO_READS = frozenset({".csv", *READERS})

    HOMEPAGE = "https://research.google.com/audioset/"
    LICENSE = "Lists: CC BY 4.0, Google Inc. The sound belongs to the authors of the videos."
    CITATION = (
        "J. F. Gemmeke et al. Audio Set: An ontology and human-labeled dataset for audio events. "
        "ICASSP 2017. DOI 10.1109/ICASSP.2017.7952261"
    )

    def label_names(self) -> Sequence[str]:
        """The display names in the order of the official indices."""
        return list(self._names.values())

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits eval, balanced and unbalanced, in the order of their lists."""
        splits: dict[str, list[Clip]] = {}
        for split, table in _LISTS.items():
            if (path := self.source.find(table)) is not None:
                splits[split] = [self._listed(row) for row in segments(path)]
            elif own := [self._labelled(packed) for packed in self._packed_by_split[split]]:
                splits[split] = own
        if not splits:
            raise DataError(
                f"config.data_dir: {self.source.folder} has none of the lists "
                f"{', '.join(_LISTS.values())}: add those whose sound you have"
            )
        return splits

    def unlisted(self) -> list[str]:
        """Return the sounds, files and packed ones, whose YouTube id is in no list."""
        listed = {clip.id for clips in self.listing.values() for clip in clips}
        return [sound.name for key, sounds in self._by_id.items() if key not in listed for sound in sounds]

    def _listed(self, row: Sequence[str]) -> Clip:
        """Return the clip of a row (id, start, end, labels), with its problem if it has one."""
        youtube_id, start, end, labels = row
        mids = list(dict.fromkeys(mid.strip() for mid in labels.split(",")))
        sounds = self._by_id.get(youtube_id, [])
        if unknown := [mid for mid in mids if mid not in self._names]:
            return Clip(youtube_id, (), problem=f"unknown label {unknown[0]!r}")
        if not sounds:
            return Clip(youtube_id, (), problem=f"no sound file named {youtube_id} or Y{youtube_id}")
        if len(sounds) > 1:
            problem = f"several sound files: {sounds[0].name}, {sounds[1].name}"
            return Clip(youtube_id, (), problem=problem)
        names = tuple(self._names[mid] for mid in mids)
        return _clip(youtube_id, names, sounds[0], float(end) - float(start))

    def _labelled(self, packed: Packed) -> Clip:
        """Return the clip of a packed sound that has its own labels: machine ids, names or indices."""
        youtube_id, own = _youtube_id(packed.name), packed.labels or ()
        names = tuple(dict.fromkeys(self._known.get(label, label) for label in own))
        if not (packed.problem or own):
            return Clip(youtube_id, (), problem="no label")
        return _clip(youtube_id, names, packed, _SECONDS)

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """Display names by machine id, in the order of the official indices."""
        return class_names(self.source.require(_CLASSES_FILE), self.builder_config.options["classes"])

    @functools.cached_property
    def _known(self) -> dict[str, str]:
        """Display names by index, machine id and display name."""
        names = list(self._names.values())
        return {str(i): name for i, name in enumerate(names)} | self._names | {name: name for name in names}

    @functools.cached_property
    def _packed(self) -> list[tuple[str, Packed]]:
        """The clips in the HDF5 and tar files, each with the path of its file."""
        files = self.source.files
        archives = tuple(file for file in files if PurePosixPath(file).suffix.lower() in READERS)
        classes = self.builder_config.options["classes"]
        return list(Archives(self.source.folder, archives, classes))

    @functools.cached_property
    def _packed_by_split(self) -> Mapping[str, list[Packed]]:
        splits: defaultdict[str, list[Packed]] = defaultdict(list)
        for file, packed in self._packed:
            splits[_split_of(file)].append(packed)
        return splits

    @functools.cached_property
    def _by_id(self) -> Mapping[str, list[Packed]]:
        """Every sound in the folder by its YouTube id."""
        sounds: defaultdict[str, list[Packed]] = defaultdict(list)
        for file in self.source.sounds:
            sounds[_youtube_id(file)].append(Packed(file, self.source.recording(file), None, ""))
        for _, packed in self._packed:
            sounds[_youtube_id(packed.name)].append(packed)
        return dict(sounds)


def _split_of(file: str) -> str:
    """Return the split that the path of a packed file names, in its name or else in its folders; '' if none.

    >>> _split_of("train_and_eval/balanced_train.h5"), _split_of("unbalanced_train/00.tar")
    ('balanced', 'unbalanced')
    """
    for part in reversed(PurePosixPath(file.lower()).parts):
        for name, split in _SPLIT_NAMES.items():
            if name in part:
                return split
    return ""


def _youtube_id(name: str) -> str:
    stem = PurePosixPath(name).stem
    return stem[1:] if len(stem) == _ID_LENGTH + 1 and stem.startswith("Y") else stem


def _clip(youtube_id: str, labels: tuple[str, ...], found: Packed, seconds: float) -> Clip:
    """Return a clip of at most this many seconds; sound that was padded beyond them is cut."""
    if found.problem:
        return Clip(youtube_id, (), problem=found.problem)
    assert found.sound is not None
    padded = isinstance(found.sound, Row) and found.sound.padded
    sound = Excerpt(found.sound, 0.0, seconds) if padded else Segment(found.sound, seconds)
    return Clip(youtube_id, labels, sound)

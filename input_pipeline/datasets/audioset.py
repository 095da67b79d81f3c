"""AudioSet: sound of YouTube videos, 527 classes, several a clip."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from input_pipeline import audio
from input_pipeline.datasets.builder import AudioBuilder
from input_pipeline.datasets.clip import Clip, Sound
from input_pipeline.datasets.source import is_audio, read_table, table_bytes
from input_pipeline.errors import DataError

# The official segment lists. Evaluation comes first: a clip that is listed twice stays there, so that no
# network is tested on what it was trained on.
_LISTS = {
    "eval": "eval_segments.csv",
    "balanced": "balanced_train_segments.csv",
    "unbalanced": "unbalanced_train_segments.csv",
}
_CLASSES_FILE = "class_labels_indices.csv"
_CLASSES = 527
_ID_LENGTH = 11  # of every YouTube id, so that the prefix in 'YYouTube_id' is no part of it
# A cut that encoders round up is longer than its segment by some hundredths of a second; a whole video,
# in which the labels hold for ten seconds only, by much more.
_TOLERANCE_SECONDS = 1.0


@dataclass(frozen=True)
class Segment(Sound):
    """A sound that lasts no longer than its row says, seconds."""

    cut: Sound
    seconds: float

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """The cut-out sound; an AudioError where it is longer than the segment."""
        loaded, sha256 = self.cut.load(max_seconds)
        seconds = len(loaded.samples) / loaded.rate
        if seconds > self.seconds + _TOLERANCE_SECONDS:
            raise audio.AudioError(
                f"{seconds:.1f} s long, its segment has {self.seconds:g} s: cut the segment out"
            )
        return loaded, sha256


class Audioset(AudioBuilder):
    """Clips of up to 10 s; splits eval, balanced, unbalanced, as far as their lists are in the folder.

    The folder holds class_labels_indices.csv, one or more of the official lists (eval_segments.csv,
    balanced_train_segments.csv, unbalanced_train_segments.csv) and the sound files, each at any depth. A
    file is named by its YouTube id, `--PJHxphWEs.wav`, or as PANNs does, `Y--PJHxphWEs.wav`, and is the
    listed segment, already cut out. Every row whose sound is missing is listed as rejected, as are rows
    with unknown labels and second rows or files of one id; leave a list away whose sound you do not have.
    """

    HOMEPAGE = "https://research.google.com/audioset/"
    LICENSE = "Lists: CC BY 4.0, Google Inc. The sound belongs to the authors of the videos."
    CITATION = (
        "J. F. Gemmeke et al. Audio Set: An ontology and human-labeled dataset for audio events. "
        "ICASSP 2017. DOI 10.1109/ICASSP.2017.7952261"
    )

    def label_names(self) -> Sequence[str]:
        """The display names in the order of the official indices."""
        return list(self._names_by_mid().values())

    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """Splits eval, balanced and unbalanced, in the order of their lists."""
        names, files = self._names_by_mid(), self._files_by_id()
        seen: set[str] = set()
        splits: dict[str, list[Clip]] = {}
        for split, table in _LISTS.items():
            if (path := self._find(table)) is not None:
                splits[split] = [
                    self._clip(row, names, files.get(row[0], []), seen) for row in _segments(path)
                ]
        if not splits:
            raise DataError(
                f"config.data_dir: {self.builder_config.source} has none of the lists "
                f"{', '.join(_LISTS.values())}: add those whose sound you have"
            )
        return splits

    def _clip(
        self, row: Sequence[str], names: Mapping[str, str], files: Sequence[str], seen: set[str]
    ) -> Clip:
        """The clip of a row (id, start, end, labels), with what is wrong with it."""
        youtube_id, start, end, labels = row
        mids = list(dict.fromkeys(mid.strip() for mid in labels.split(",")))
        problem = ""
        if youtube_id in seen:
            problem = "listed a second time"
        elif unknown := [mid for mid in mids if mid not in names]:
            problem = f"unknown label {unknown[0]!r}"
        elif not files:
            problem = f"no sound file named {youtube_id} or Y{youtube_id}"
        elif len(files) > 1:
            problem = f"several sound files: {files[0]}, {files[1]}"
        seen.add(youtube_id)
        if problem:
            return Clip(youtube_id, (), problem=problem)
        segment = Segment(self.recording(files[0]), float(end) - float(start))
        return Clip(youtube_id, tuple(names[mid] for mid in mids), segment)

    def _names_by_mid(self) -> dict[str, str]:
        """Display names by machine id such as '/m/09x0r', in the order of the official indices."""
        path = self._find(_CLASSES_FILE)
        if path is None:
            raise DataError(
                f"config.data_dir: {self.builder_config.source} lacks {_CLASSES_FILE}: add the official list"
            )
        rows = read_table(path, ("index", "mid", "display_name"))
        names = {row["mid"]: row["display_name"] for row in rows}
        if [row["index"] for row in rows] != [str(i) for i in range(_CLASSES)] or len(names) != _CLASSES:
            raise DataError(f"{path} is not AudioSet's list of {_CLASSES} classes: take the official one")
        return names

    def _files_by_id(self) -> dict[str, list[str]]:
        files: defaultdict[str, list[str]] = defaultdict(list)
        for file in filter(is_audio, self.builder_config.files):
            name = PurePosixPath(file).stem
            prefixed = len(name) == _ID_LENGTH + 1 and name.startswith("Y")
            files[name[1:] if prefixed else name].append(file)
        return dict(files)

    def _find(self, table: str) -> Path | None:
        """Where in the folder an official list lies, or None."""
        found = [file for file in self.builder_config.files if PurePosixPath(file).name == table]
        if len(found) > 1:
            raise DataError(f"config.data_dir: both {found[0]} and {found[1]} are there: remove one of them")
        return self.builder_config.source / found[0] if found else None


def _segments(path: Path) -> Iterator[list[str]]:
    """The rows of a segment list: id, start and end in seconds, labels. Comments begin with '#'.

    Raises:
      DataError: not a list of segments; the message names the line.
    """
    try:
        reader = csv.reader(
            io.StringIO(table_bytes(path).decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True
        )
        for row in reader:
            if not row or row[0].startswith("#"):
                continue
            if len(row) != 4 or not row[0] or not _lasts(row[1], row[2]):
                raise DataError(
                    f"{path}, line {reader.line_num}: expected id, start and end in seconds, labels"
                )
            yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a csv table in UTF-8: {error}") from error


def _lasts(start: str, end: str) -> bool:
    try:
        return 0 <= float(start) < float(end) < float("inf")
    except ValueError:
        return False

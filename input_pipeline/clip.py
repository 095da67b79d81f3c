"""Clips as a data set lists them, and the sources of their sound."""

import abc
import dataclasses
import hashlib
from pathlib import Path

from input_pipeline import audio
from input_pipeline.source import leads_nowhere


class Sound(abc.ABC):
    """Source of a clip's sound. Small and picklable, because it is sent to worker processes."""

    @property
    def file(self) -> Path | None:
        """The sound file that it is, or is part of; None if it is in an archive or in no file."""
        return None

    @abc.abstractmethod
    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the sound at its own rate, and the SHA-256 of its source.

        Args:
          max_seconds: the longest recording accepted, seconds.

        Raises:
          audio.AudioError: the clip is to be rejected; the message is the reason.
          OSError: it cannot be read now, which says nothing about the clip.
        """


@dataclasses.dataclass(frozen=True)
class Recording(Sound):
    """A sound file."""

    path: Path

    @property
    def file(self) -> Path:
        """The file."""
        return self.path

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the decoded file."""
        try:
            with self.path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            if leads_nowhere(self.path):
                raise audio.AudioError("a link to a file that does not exist") from error
            raise
        return audio.decode(self.path, max_seconds=max_seconds), sha256


@dataclasses.dataclass(frozen=True)
class Excerpt(Sound):
    """A part of another sound, in seconds; it ends where that sound ends."""

    whole: Sound
    start: float
    end: float

    @property
    def file(self) -> Path | None:
        """The file of the whole sound."""
        return self.whole.file

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """Return the samples from start to end; AudioError if there are none."""
        loaded, sha256 = self.whole.load(max_seconds)
        first, last = (round(second * loaded.rate) for second in (self.start, self.end))
        if not (samples := loaded.samples[first:last]).size:
            raise audio.AudioError(f"no sound from {self.start:g} to {self.end:g} s")
        return dataclasses.replace(loaded, samples=samples), sha256


@dataclasses.dataclass(frozen=True)
class Clip:
    """One source clip.

    Attributes:
      id: unique name in the data set.
      labels: names of its classes.
      sound: source of its sound; None only if there is a problem.
      problem: why it is rejected before decoding, such as an absent file; '' if there is no problem.
      seconds: official length, to which it is cut or zero-padded at the end; None keeps its own length.
    """

    id: str
    labels: tuple[str, ...]
    sound: Sound | None = None
    problem: str = ""
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A clip in a file that holds several.

    Attributes:
      name: name of the clip in the file, with folders and suffix.
      sound: source of its sound; None only if there is a problem.
      labels: its classes as the file gives them; None if it gives none.
      problem: why it is not used; '' if there is no problem.
    """

    name: str
    sound: Sound | None
    labels: tuple[str, ...] | None
    problem: str

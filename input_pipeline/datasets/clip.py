"""One clip as a data set lists it, and the sound behind it, wherever that lies."""

import abc
import dataclasses
import hashlib
from pathlib import Path

from input_pipeline import audio


class Sound(abc.ABC):
    """Where the sound of a clip comes from. Small and picklable: worker processes are handed it."""

    @property
    def file(self) -> Path | None:
        """The sound file that it is, or is a part of; None where it lies in an archive or nowhere."""
        return None

    @abc.abstractmethod
    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """The sound at its own rate, and the SHA-256 of its source.

        Args:
          max_seconds: the longest recording accepted, seconds.

        Raises:
          audio.AudioError: with the reason why the clip is to be rejected.
          OSError: it cannot be read now, which says nothing of the clip.
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
        """The decoded file."""
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return audio.decode(self.path, max_seconds=max_seconds), sha256


@dataclasses.dataclass(frozen=True)
class Excerpt(Sound):
    """A part of another sound, seconds; what lies beyond its end is not there."""

    whole: Sound
    start: float
    end: float

    @property
    def file(self) -> Path | None:
        """That of the whole."""
        return self.whole.file

    def load(self, max_seconds: float) -> tuple[audio.Audio, str]:
        """The samples from start to end; an AudioError where there are none."""
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
      sound: where its sound is; None only where there is a problem.
      problem: why it is rejected unheard, such as an absent file; '' where nothing speaks against it.
      seconds: the official length, to which it is cut or zero-padded at the end; None leaves it as it is.
    """

    id: str
    labels: tuple[str, ...]
    sound: Sound | None = None
    problem: str = ""
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """A clip in a file with others.

    Attributes:
      name: of the clip there, with folders and suffix.
      sound: where it is; None only where there is a problem.
      labels: what the file says of its classes; None where it says nothing.
      problem: why it is not taken; '' where nothing speaks against it.
    """

    name: str
    sound: Sound | None
    labels: tuple[str, ...] | None
    problem: str

"""How sound of any sample rate and length is tagged: in windows, whose probabilities are averaged.

`Tagger`, `TaggerEnsemble` and `rann_jax.predict` share this definition. A window of t_c seconds starts every
hop (by default half a window), and the last window ends with the sound. A sound shorter than a window is
padded with zeros at its end. The tags of a sound are the mean of the windows' probabilities, each window
counted once. Evaluation during training differs on clips longer than t_c: it uses a few evenly spaced crops.
"""

import abc
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from input_pipeline import audio
from rann_jax.devices.dispatch import one_behind
from rann_jax.errors import ConfigError
from rann_jax.features.signal import number
from rann_jax.tagging.sound import check_finite, check_rate, checked, checked_blocks
from rann_jax.tagging.timeline import RunningMean, Timeline, WindowProbabilities, joined, most_probable
from rann_jax.tagging.windows import batched, resampled, sliding

# (ours) Batches of windows that `probabilities` holds at a time: many, so that few of them are small.
BATCHES = 16

# The variables are on one device, which a program that has set a mesh of several would refuse.
NO_MESH = Mesh(np.empty((), object), ())


class Listener(abc.ABC):
    """Base class of models that turn sound into class probabilities, window by window.

    Attributes:
      labels: (C,) class names.
      task: "classification" (probabilities sum to 1) or "tagging" (each class by itself).
      sample_rate: rate in Hz that the networks take; sound at other rates is resampled.
      crop_samples: length of a window at that rate.
      batch_size: largest number of windows computed together.
    """

    labels: tuple[str, ...]
    task: str
    sample_rate: int
    crop_samples: int
    batch_size: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._description()})"

    def _description(self) -> str:
        return f"{len(self.labels)} classes, {self.sample_rate} Hz, windows of {self.window_seconds:g} s"

    @property
    def window_seconds(self) -> float:
        """Length of a window in seconds, t_c."""
        return self.crop_samples / self.sample_rate

    def hop_samples(self, seconds: float | None) -> int:
        """Return the number of samples between window starts every `seconds`; None means half a window.

        Raises:
          ValueError: the hop is not a number, rounds to zero samples, or is longer than a window.
        """
        size, rate = self.crop_samples, self.sample_rate
        if seconds is None:
            return max(1, size // 2)
        seconds = number("hop_seconds", seconds)
        # NaN and infinity have no nearest sample.
        hop = round(seconds * rate) if 0 < seconds <= self.window_seconds else 0
        if hop < 1:
            raise ValueError(
                f"hop_seconds={seconds:g}: it must be between a sample ({1 / rate:.2g} s) and a window "
                f"({self.window_seconds:g} s)"
            )
        return hop

    @abc.abstractmethod
    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        """Return class probabilities of windows (W, crop_samples); for an ensemble, also their conflict.

        Raises:
          ValueError: the windows have another shape.
        """

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Return class probabilities (W, C) of windows (W, crop_samples) at `sample_rate`.

        This is for windows that you cut yourself; `tag` and `probabilities` take sounds of any length.

        Args:
          windows: floating, full scale +-1, or int16.

        Raises:
          ValueError: the windows have another shape, or samples that are not finite.
        """
        windows = np.asarray(windows)
        check_finite(windows)
        return self.infer(windows).probabilities

    def tag(
        self, wave: np.ndarray, sample_rate: int, *, hop_seconds: float | None = None
    ) -> dict[str, float]:
        """Return class names and probabilities of a sound, the most probable first: the mean of its timeline.

        Args:
          wave: (N,) floating, full scale +-1, or int16.
          sample_rate: rate of `wave`, Hz.
          hop_seconds: time between window starts; None means half a window.

        Raises:
          ValueError: the sound is a path, empty, not (N,), of another type, not finite, or floating at the
            scale of integers; the sample rate is not a number, or out of range; the hop is not a number,
            rounds to zero samples, or is longer than a window.
        """
        return self._tags(self.stream_checked([checked(wave)], sample_rate, hop_seconds=hop_seconds))

    def tag_file(self, path: str | Path, *, hop_seconds: float | None = None) -> dict[str, float]:
        """Return what `tag` does for a sound file, in memory that does not depend on its length.

        Any format that libsndfile reads, rate, length and number of channels will do; channels are averaged.

        Raises:
          AudioError: there is no such file, or it cannot be decoded, is broken or empty.
          ValueError: the hop is refused as by `tag`.
        """
        return self._tags(self.stream_file(path, hop_seconds=hop_seconds))

    def _tags(self, parts: Iterable[Timeline]) -> dict[str, float]:
        mean = RunningMean()
        for part in parts:
            mean.add(part)
        return most_probable(self.labels, mean.probabilities)

    def probabilities(self, waves: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Return the tags of several sounds of any lengths, (len(waves), C) float32 in the order of `labels`.

        Windows of all sounds are computed together, in at most log2(batch_size) + 2 compiled shapes. Few are
        in memory at a time.

        Raises:
          ValueError: as for `tag`.
        """
        total, counts = np.zeros((len(waves), len(self.labels))), np.zeros((len(waves), 1))
        windows = (
            (number, window)
            for number, wave in enumerate(waves)
            for _, _, window in self._windows([checked(wave)], sample_rate, None)
        )
        while group := list(itertools.islice(windows, BATCHES * self.batch_size)):
            numbers, several = zip(*group, strict=True)
            np.add.at(total, np.array(numbers), self.predict(np.stack(several)))
            np.add.at(counts, np.array(numbers), 1)
        return (total / counts).astype(np.float32)

    def timeline(self, wave: np.ndarray, sample_rate: int, *, hop_seconds: float | None = None) -> Timeline:
        """Return class probabilities over time, in windows of `window_seconds` every `hop_seconds`.

        Arguments and errors are those of `tag`.
        """
        return joined(list(self.stream_checked([checked(wave)], sample_rate, hop_seconds=hop_seconds)))

    def timeline_file(self, path: str | Path, *, hop_seconds: float | None = None) -> Timeline:
        """Return what `timeline` does for a sound file; arguments and errors are those of `tag_file`.

        Memory grows only with the number of windows: for longer sounds see `stream_file`.
        """
        return joined(list(self.stream_file(path, hop_seconds=hop_seconds)))

    def stream_file(self, path: str | Path, *, hop_seconds: float | None = None) -> Iterator[Timeline]:
        """Yield the timeline of a sound file in parts, in memory that does not depend on its length.

        The parts are consecutive, each of at most `batch_size` windows. Arguments and errors are those of
        `tag_file`. A file that turns out to be broken raises its error where the fault is, after the parts
        before it.
        """
        try:
            if not Path(path).exists():
                raise audio.AudioError("no such file")
            with audio.stream(path) as sound:
                heard = False
                for part in self.stream_checked(sound.blocks, sound.rate, hop_seconds=hop_seconds):
                    heard = True
                    yield part
            if not heard:
                raise audio.AudioError("no samples")
        except audio.AudioError as error:
            raise audio.AudioError(f"{path}: {error}") from error

    def stream(
        self, blocks: Iterable[np.ndarray], sample_rate: int, *, hop_seconds: float | None = None
    ) -> Iterator[Timeline]:
        """Yield the timeline of a sound that comes in blocks, in memory that does not depend on its length.

        Args:
          blocks: consecutive parts (n,) of the sound, each empty or as for `tag`. Their scale is judged at
            the end of the sound, since a loud block says little about the whole; only absurdly loud samples
            are refused at once.
          sample_rate: rate of the blocks, Hz.
          hop_seconds: time between window starts; None means half a window.

        Yields:
          Consecutive parts of at most `batch_size` windows; none for a sound without samples.

        Raises:
          ValueError: as for `tag`, when the block in question, or the end, is reached.
        """
        return self.stream_checked(checked_blocks(blocks), sample_rate, hop_seconds=hop_seconds)

    def stream_checked(
        self, blocks: Iterable[np.ndarray], sample_rate: int, *, hop_seconds: float | None = None
    ) -> Iterator[Timeline]:
        """Yield what `stream` does, for float32 blocks that are checked already.

        `input_pipeline.audio.stream` checks its blocks, and knows their format: a loud mp3 may exceed full
        scale, floats at the scale of integers may not.
        """
        windows = self._windows(blocks, sample_rate, hop_seconds)
        for starts, stops, group in batched(windows, self.batch_size):
            found = self.infer(np.stack(group))
            begins, ends = (np.array(edge) / self.sample_rate for edge in (starts, stops))
            yield Timeline(begins, ends, found.probabilities, self.labels, found.conflict, found.by_model)

    def _in_batches(self, step: Callable[[Any, Any], Any], variables: Any, windows: np.ndarray) -> Any:
        """Apply `in_batches` to windows; ValueError unless they are (W, crop_samples).

        Front ends crop and pad whatever they are given, so other lengths would be heard in part only.
        """
        windows = np.asarray(windows)
        if windows.ndim != 2 or windows.shape[1] != self.crop_samples:
            raise ValueError(
                f"windows must be (W, {self.crop_samples}), {self.window_seconds:g} s at {self.sample_rate} "
                f"Hz, not {windows.shape}: tag, timeline, probabilities and embed take sounds of any length"
            )
        # A compiled program would read numbers of another byte order as if they were of its own.
        windows = windows.astype(windows.dtype.newbyteorder("="), copy=False)
        with jax.set_mesh(NO_MESH):
            return in_batches(step, variables, windows, self.batch_size)

    def _windows(
        self, blocks: Iterable[np.ndarray], sample_rate: int, hop_seconds: float | None
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        check_rate(sample_rate)
        hop = self.hop_samples(hop_seconds)
        return sliding(resampled(blocks, sample_rate, self.sample_rate), self.crop_samples, hop)


def check_batch_size(batch_size: int | None) -> int:
    """Return the batch size; for None the default, which is 16, or 4 on a CPU.

    The arrays of 16 windows do not fit a CPU's cache: CNN14 was 5% faster with 4.

    Raises:
      ConfigError: the batch size is below 1.
    """
    if batch_size is None:
        return 4 if jax.default_backend() == "cpu" else 16
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: it must be at least 1")
    return batch_size


def in_batches(step: Callable[[Any, Any], Any], variables: Any, windows: np.ndarray, batch_size: int) -> Any:
    """Apply `step(variables, windows (B, N))`, whose result is a tree of arrays (B, ...), to all windows.

    The last batch is padded to a power of two or the full size, so that only a few programs are compiled. For
    no windows at all, the arrays are (0, ...).
    """
    if not len(windows):
        one = jax.ShapeDtypeStruct((1, *windows.shape[1:]), windows.dtype)
        shapes = jax.eval_shape(step, variables, one)
        return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), shapes)

    def result(start: int) -> Any:
        batch = windows[start : start + batch_size]
        filled = min(batch_size, 1 << (len(batch) - 1).bit_length())
        return step(variables, np.pad(batch, [(0, filled - len(batch)), (0, 0)]))

    results = one_behind(map(result, range(0, len(windows), batch_size)))
    parts = [jax.device_get(part) for part in results]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(windows)], *parts)

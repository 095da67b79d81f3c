"""A trained model for use: `Tagger.load(workdir)` needs nothing but the workdir's checkpoint.

The rate, front end, network and labels are those that travel with the weights. Sound at another rate is
resampled; it is never taken at a wrong one. The network hears windows of t_c seconds: longer sound is
heard in several, shorter sound is padded with zeros at its end.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from rann_jax.checkpoint import Checkpoints
from rann_jax.errors import ConfigError
from rann_jax.experiment import Experiment, build
from rann_jax.steps import make_embed_step, make_eval_step
from rann_jax.windows import batched, covering, resampled, sliding


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Class probabilities over time.

    Attributes:
      starts: (W,) begin of each window, seconds.
      stops: (W,) end of each window, seconds; never beyond the end of the sound.
      probabilities: (W, C) float32.
      labels: (C,) class names.
    """

    starts: np.ndarray
    stops: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]


class Tagger:
    """A network with its front end, weights and labels.

    Attributes:
      sample_rate: Hz, of the sound that the network hears.
      labels: (C,) class names.
      task: "classification" (probabilities sum to 1) or "tagging" (each class by itself).
      window_seconds: length of the sound heard at a time, t_c.
      batch_size: windows computed together at most.

    Args:
      experiment: config, front end and network.
      variables: weights and statistics, as `model.apply` takes them.
      labels: class names, in the order of the logits.
      batch_size: see above.
    """

    def __init__(
        self,
        experiment: Experiment,
        variables: dict[str, Any],
        labels: Sequence[str],
        *,
        batch_size: int = 16,
    ):
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: it must be at least 1")
        config = experiment.config
        self.experiment = experiment
        self.variables = variables
        self.labels = tuple(labels)
        self.sample_rate = int(config.sample_rate)
        self.task = str(config.task)
        self.window_seconds = experiment.crop_samples / self.sample_rate
        self.batch_size = batch_size
        self._probabilities = jax.jit(
            make_eval_step(experiment.model, experiment.front_end, task=config.task)
        )
        self._embeddings = jax.jit(make_embed_step(experiment.model, experiment.front_end))

    @classmethod
    def load(cls, workdir: str | Path, *, checkpoint: str = "latest", batch_size: int = 16) -> "Tagger":
        """The averaged weights of a run, with all that was saved beside them.

        Args:
          workdir: the run's folder; only its `checkpoints/` is read.
          checkpoint: "latest" or "best".
          batch_size: windows computed together at most.

        Raises:
          ConfigError: there is no such checkpoint.
        """
        workdir = Path(workdir)
        if checkpoint not in ("latest", "best"):
            raise ConfigError(f"checkpoint={checkpoint!r}: it must be latest or best")
        if not (workdir / "checkpoints").is_dir():
            raise ConfigError(f"{workdir} holds no checkpoints/: name the folder of a trained model")
        with closing(Checkpoints(workdir, best_metric="")) as checkpoints:
            if checkpoints.latest_step is None:
                raise ConfigError(f"{workdir} holds no whole checkpoint: train it first")
            bundle = checkpoints.record(checkpoints.latest_step).bundle
        experiment = build(ConfigDict(bundle["config"]))
        with closing(Checkpoints(workdir, experiment.config.best_metric)) as checkpoints:
            step = checkpoints.best_step if checkpoint == "best" else checkpoints.latest_step
            if step is None:
                raise ConfigError(f"{workdir} holds no {checkpoint} checkpoint: it was never evaluated")
            sharding = SingleDeviceSharding(jax.local_devices()[0])
            state, _ = checkpoints.restore(experiment.abstract_state(sharding), step)
        return cls(experiment, state.ema_variables, bundle["labels"], batch_size=batch_size)

    def tag(self, wave: np.ndarray, sample_rate: int) -> dict[str, float]:
        """Class names and probabilities of a sound, the most probable first.

        Args:
          wave: (N,) floating, full scale +-1, or int16.
          sample_rate: of `wave`, Hz.

        Raises:
          ValueError: the sound is empty, not (N,), of another type, or not finite.
        """
        probabilities = self.probabilities([wave], sample_rate)[0]
        order = np.argsort(-probabilities, kind="stable")
        return {self.labels[c]: float(probabilities[c]) for c in order}

    def probabilities(self, waves: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Class probabilities (len(waves), C) of sounds of any lengths, float32.

        Each is the mean over the fewest evenly spaced windows that cover the sound, as in evaluation.
        Windows of all sounds are computed together, in at most log2(batch_size) + 2 compiled shapes.

        Raises:
          ValueError: as `tag`.
        """
        size = self.experiment.crop_samples
        windows, owner = [], []
        for number, wave in enumerate(waves):
            sound = self._heard(wave, sample_rate)
            for start in covering(len(sound), size):
                windows.append(_padded(sound[start : start + size], size))
                owner.append(number)
        total = np.zeros((len(waves), len(self.labels)))
        if windows:
            np.add.at(total, owner, self.predict(np.stack(windows)))
        counts = np.bincount(np.array(owner, int), minlength=len(waves))
        return (total / counts[:, None]).astype(np.float32)

    def timeline(self, wave: np.ndarray, sample_rate: int, *, hop_seconds: float | None = None) -> Timeline:
        """Class probabilities over time, in windows of `window_seconds` every `hop_seconds`.

        Args:
          wave: (N,) as in `tag`.
          sample_rate: of `wave`, Hz.
          hop_seconds: None is half a window.

        Raises:
          ValueError: as `tag`; the hop is not positive, or longer than a window.
        """
        heard = checked(wave)
        parts = list(self.stream([heard], sample_rate, hop_seconds=hop_seconds))
        starts, stops, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Timeline(starts, stops, probabilities, self.labels)

    def stream(
        self, blocks: Iterable[np.ndarray], sample_rate: int, *, hop_seconds: float | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The timeline of a sound that comes in blocks (n,) float32; its length does not change the memory.

        Yields:
          (starts, stops, probabilities) of at most `batch_size` windows: (w,), (w,) seconds and (w, C).

        Raises:
          ValueError: the hop is not positive, or longer than a window.
        """
        for starts, stops, windows in self._windows(blocks, sample_rate, hop_seconds):
            yield starts, stops, self.predict(windows)

    def embed(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """The embedding (D,) of a sound: the mean over the windows that cover it.

        Raises:
          ValueError: as `tag`.
        """
        size, sound = self.experiment.crop_samples, self._heard(wave, sample_rate)
        windows = [_padded(sound[start : start + size], size) for start in covering(len(sound), size)]
        return self.embed_windows(np.stack(windows)).mean(axis=0)

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Class probabilities (W, C) of windows (W, crop_samples) at `sample_rate`."""
        return self._in_batches(self._probabilities, windows)

    def embed_windows(self, windows: np.ndarray) -> np.ndarray:
        """Embeddings (W, D) of windows (W, crop_samples) at `sample_rate`."""
        return self._in_batches(self._embeddings, windows)

    def _windows(self, blocks, sample_rate, hop_seconds):
        size = self.experiment.crop_samples
        hop = size // 2 if hop_seconds is None else round(hop_seconds * self.sample_rate)
        if not 1 <= hop <= size:
            raise ValueError(
                f"hop_seconds={hop_seconds:g}: it must be positive and at most the window, "
                f"{self.window_seconds:g} s"
            )
        at_rate = resampled(blocks, sample_rate, self.sample_rate)
        for starts, stops, windows in batched(sliding(at_rate, size, hop), self.batch_size):
            seconds = (np.array(edge) / self.sample_rate for edge in (starts, stops))
            yield (*seconds, np.stack(windows))

    def _heard(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """The sound (n,) as the network hears it, float32 at its own rate."""
        sound = np.concatenate(list(resampled([checked(wave)], sample_rate, self.sample_rate)))
        # A resampled sound shorter than a sample of the slower rate is still a sound.
        return sound if sound.size else np.zeros(1, np.float32)

    def _in_batches(self, step: Any, windows: np.ndarray) -> np.ndarray:
        """Apply a step to windows in batches whose sizes are powers of two or the full batch."""
        parts = []
        for start in range(0, len(windows), self.batch_size):
            batch = windows[start : start + self.batch_size]
            filled = min(self.batch_size, 1 << (len(batch) - 1).bit_length())
            padding = [(0, filled - len(batch)), (0, 0)]
            parts.append(np.asarray(step(self.variables, np.pad(batch, padding)))[: len(batch)])
        return np.concatenate(parts)


def checked(wave: np.ndarray) -> np.ndarray:
    """A sound as float32 (N,), full scale +-1.

    Raises:
      ValueError: it is empty, not (N,), neither floating nor int16, or not finite.
    """
    wave = np.asarray(wave)
    if wave.ndim != 1 or not wave.size:
        raise ValueError(f"a sound is (N,), mono and not empty, not of shape {wave.shape}")
    if wave.dtype == np.int16:
        return wave.astype(np.float32) / 32768
    if not np.issubdtype(wave.dtype, np.floating):
        raise ValueError(f"a sound is floating or int16, not {wave.dtype}")
    if not np.isfinite(wave).all():
        raise ValueError("the sound has NaN or infinite samples")
    return wave.astype(np.float32)


def _padded(window: np.ndarray, size: int) -> np.ndarray:
    return np.pad(window, (0, size - len(window)))

"""Use a trained model: `Tagger.load(workdir)` needs nothing but the workdir's checkpoint.

The sample rate, front end, network and labels are stored with the weights. Sound at another rate is
resampled, so the model never hears it at the wrong rate.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from rann_jax.devices.compiler import suited, xla_options
from rann_jax.experiment import Experiment, build
from rann_jax.features.front_ends.base import FrontEnd
from rann_jax.saved.trained import Trained, load_trained, save_trained
from rann_jax.steps import make_embed_step, make_eval_step
from rann_jax.tagging.from_parts import put_together
from rann_jax.tagging.listener import NO_MESH, Listener, check_batch_size
from rann_jax.tagging.sound import check_finite, checked
from rann_jax.tagging.timeline import WindowProbabilities
from rann_jax.tagging.windows import batched


class Tagger(Listener):
    """A network with its front end, weights and labels; its base class says how sound is fed to it.

    Args:
      experiment: config, front end and network.
      variables: weights and statistics, in the form that `model.apply` takes.
      labels: class names, in the order of the logits.
      batch_size: largest number of windows computed together; None means 16, or 4 on a CPU.
    """

    def __init__(
        self,
        experiment: Experiment,
        variables: dict[str, Any],
        labels: Sequence[str],
        *,
        batch_size: int | None = None,
    ):
        config = experiment.config
        self.experiment = experiment
        self.variables = variables
        self.labels = tuple(labels)
        self.sample_rate = int(config.sample_rate)
        self.task = str(config.task)
        self.crop_samples = experiment.crop_samples
        self.batch_size = check_batch_size(batch_size)
        # (variables, windows (B, N)) -> probabilities (B, C), not yet compiled.
        model = suited(experiment.model)
        self.step = make_eval_step(model, experiment.front_end, task=config.task)
        self._probabilities = jax.jit(self.step, compiler_options=xla_options())
        embed = make_embed_step(model, experiment.front_end)
        self._embeddings = jax.jit(embed, compiler_options=xla_options())

    @classmethod
    def load(
        cls, workdir: str | Path, *, checkpoint: str = "latest", batch_size: int | None = None
    ) -> "Tagger":
        """Load the moving average of a run's weights, and the config and labels saved with them.

        Args:
          workdir: the run's workdir; only its `checkpoints/` is read.
          checkpoint: "latest", the newest that can be read, with a warning for each that cannot; or "best".
          batch_size: largest number of windows computed together; None means 16, or 4 on a CPU.

        Raises:
          ConfigError: there is no such checkpoint, or it cannot be read.
        """
        return cls(*load_trained(Path(workdir), checkpoint), batch_size=batch_size)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        variables: Mapping[str, Any],
        front_end: FrontEnd,
        labels: Sequence[str],
        *,
        task: str,
        batch_size: int | None = None,
    ) -> "Tagger":
        """Put a tagger together from your own weights, without a workdir; `save` makes one.

        Args:
          model: made by `models.create`, with as many classes as there are labels.
          variables: {"params", "batch_stats"} as from `model.init` or `interop.load_torch`; they are copied.
          front_end: made by `features.front_end`; it gives the sample rate and the length of a window.
          labels: class names, in the order of the logits.
          task: "classification" (softmax of the logits) or "tagging" (sigmoid).
          batch_size: largest number of windows computed together; None means 16, or 4 on a CPU.

        Raises:
          ConfigError: model or front end were made elsewhere, they, the variables or the labels do not fit
            each other, or there is no such task; the message names the argument.
          DataError: a label is repeated, or cannot be written in one line.
        """
        return cls(*put_together(model, variables, front_end, labels, task), batch_size=batch_size)

    def save(self, workdir: str | Path) -> None:
        """Write the model to a new workdir, which all programs and `Tagger.load` take.

        The name of a RANN in its config.json begins with the length of the windows. A workdir of this kind
        is not trained further; a run that starts from its weights has `--config.init_from=WORKDIR`.

        Raises:
          ConfigError: the workdir cannot be written, or holds a run already.
        """
        save_trained(Trained(self.experiment, self.variables, self.labels), Path(workdir))

    def __reduce__(self) -> Any:  # the compiled programs and the optimiser cannot be pickled
        config = self.experiment.config.to_dict()
        return _rebuilt, (type(self), config, jax.device_get(self.variables), self.labels, self.batch_size)

    def _description(self) -> str:
        return f"{self.name}, {super()._description()}"

    @property
    def name(self) -> str:
        """The names of the network and of its front end, such as "rann-8x4-6, log_mel"."""
        return f"{self.experiment.config.model.name}, {self.experiment.front_end.name}"

    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        """Return class probabilities (W, C) of windows (W, crop_samples); one model has no conflict.

        Raises:
          ValueError: the windows have another shape.
        """
        return WindowProbabilities(self._in_batches(self._probabilities, self.variables, windows))

    def embed(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the embedding (D,) of a sound: the mean over the windows of its timeline.

        Raises:
          ValueError: as for `tag`.
        """
        windows = self._windows([checked(wave)], sample_rate, None)
        parts = [self.embed_windows(np.stack(group)) for *_, group in batched(windows, self.batch_size)]
        return np.concatenate(parts).mean(axis=0)

    def embed_windows(self, windows: np.ndarray) -> np.ndarray:
        """Return embeddings (W, D) of windows (W, crop_samples) at `sample_rate`.

        Raises:
          ValueError: as for `predict`.
        """
        windows = np.asarray(windows)
        check_finite(windows)
        return self._in_batches(self._embeddings, self.variables, windows)

    @property
    def embedding_size(self) -> int:
        """The size D of an embedding, found without computing one."""
        window = jax.ShapeDtypeStruct((1, self.crop_samples), jnp.float32)
        with jax.set_mesh(NO_MESH):
            return jax.eval_shape(self._embeddings, self.variables, window).shape[-1]


def _rebuilt(
    kind: type[Tagger],
    config: dict[str, Any],
    variables: dict[str, Any],
    labels: Sequence[str],
    batch_size: int,
) -> Tagger:
    """Return the tagger that was pickled, with its weights on the first device."""
    placed = jax.device_put(variables, jax.local_devices()[0])
    return kind(build(ConfigDict(config)), placed, labels, batch_size=batch_size)

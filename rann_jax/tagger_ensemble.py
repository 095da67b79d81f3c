"""Several trained models on the same windows of a sound, fused by a rule of rann_jax/fusion.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rann_jax import fusion
from rann_jax.compiler import xla_options
from rann_jax.errors import ConfigError
from rann_jax.listener import Listener, check_batch_size
from rann_jax.tagger import Tagger
from rann_jax.timeline import WindowProbabilities
from rann_jax.workdir import check_distinct

DEFAULT_RULE = "wa"


class TaggerEnsemble(Listener):
    """Models with the same classes, fused window by window.

    Front ends and networks may differ; labels, task, sample rate and window length must not. The conflict of
    a window is Dempster's conflict between the models; for tagging, where every class has its own, it is the
    mean over the classes.

    Args:
      taggers: at least two models.
      rule: one of fusion.RULES: wa (the mean), ds, ids, murphy, deng.
      batch_size: largest number of windows computed together; None means 16, or 4 on a CPU.

    Raises:
      ConfigError: the rule is unknown, there are fewer than two models, or two models cannot be fused; the
        message says which, and why.
    """

    def __init__(self, taggers: Sequence[Tagger], *, rule: str = DEFAULT_RULE, batch_size: int | None = None):
        if rule not in fusion.RULES:
            raise ConfigError(f"rule={rule!r}: use one of {', '.join(fusion.RULES)}")
        if len(taggers) < 2:
            raise ConfigError("an ensemble needs two models or more")
        first = taggers[0]
        for number, other in enumerate(taggers[1:], start=2):
            for what in ("labels", "task", "sample_rate", "window_seconds"):
                mine, theirs = getattr(first, what), getattr(other, what)
                if mine != theirs:
                    shown = "" if what == "labels" else f" ({mine} and {theirs})"
                    raise ConfigError(
                        f"models 1 and {number} differ in their {what}{shown}: fuse only models of the same "
                        "classes that hear the same windows"
                    )
        self.labels, self.task = first.labels, first.task
        self.sample_rate, self.crop_samples = first.sample_rate, first.crop_samples
        self.batch_size = check_batch_size(batch_size)
        self.rule = rule
        self._variables = tuple(tagger.variables for tagger in taggers)
        steps = tuple(tagger.step for tagger in taggers)

        def fused(variables: tuple[Any, ...], windows: jax.Array) -> WindowProbabilities:
            probs = jnp.stack([step(own, windows) for step, own in zip(steps, variables, strict=True)])
            conflict = fusion.conflict(fusion.masses_for(self.task, probs))
            by_window = conflict.reshape(len(windows), -1).mean(axis=1)
            fused_probs = fusion.fuse(rule, probs, task=self.task)
            return WindowProbabilities(fused_probs, by_window, jnp.swapaxes(probs, 0, 1))

        self._fused = jax.jit(fused, compiler_options=xla_options())

    @classmethod
    def load(
        cls,
        workdirs: Sequence[str | Path],
        *,
        rule: str = DEFAULT_RULE,
        checkpoint: str = "latest",
        batch_size: int | None = None,
    ) -> "TaggerEnsemble":
        """Load the models of several workdirs.

        Raises:
          ConfigError: as for the class and `Tagger.load`; or `workdirs` is a single path, or names a workdir
            twice.
        """
        if isinstance(workdirs, str | Path):
            raise ConfigError(
                f"workdirs={workdirs}: an ensemble takes a list of two or more; Tagger.load takes one"
            )
        check_distinct(workdirs)
        taggers = [Tagger.load(workdir, checkpoint=checkpoint) for workdir in workdirs]
        return cls(taggers, rule=rule, batch_size=batch_size)

    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        """Return fused probabilities (W, C) of windows (W, crop_samples), the conflict, and each model's.

        Raises:
          ValueError: the windows have another shape.
        """
        return self._in_batches(self._fused, self._variables, windows)


def load(workdirs: Sequence[Path], rule: str | None, checkpoint: str, batch_size: int | None) -> Listener:
    """Load one model, or an ensemble of several, for programs with an option --rule.

    Raises:
      ConfigError: a workdir has no such checkpoint, the models cannot be fused, or a rule is given for a
        single model.
    """
    if len(workdirs) == 1:
        if rule is not None:
            raise ConfigError(f"--rule={rule} fuses several models: add another workdir, or leave --rule out")
        return Tagger.load(workdirs[0], checkpoint=checkpoint, batch_size=batch_size)
    rule = DEFAULT_RULE if rule is None else rule
    return TaggerEnsemble.load(workdirs, rule=rule, checkpoint=checkpoint, batch_size=batch_size)

"""Several trained models on the same windows of a sound, fused by a rule of rann_jax/fusion.py."""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rann_jax import fusion
from rann_jax.devices.compiler import xla_options
from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import check_distinct
from rann_jax.tagger import Tagger
from rann_jax.tagging.listener import Listener, check_batch_size
from rann_jax.tagging.timeline import WindowProbabilities

DEFAULT_RULE = "wa"


class TaggerEnsemble(Listener):
    """Models with the same classes, fused window by window.

    Front ends and networks may differ; labels, task, sample rate and window length must not. The conflict of
    a window is Dempster's conflict between the models; for tagging, where every class has its own, it is the
    mean over the classes.

    Args:
      taggers: at least two models.
      rule: one of fusion.RULES: wa (the weighted average), ds, ids, murphy, deng.
      weights: (M,) weights of the models for the rule wa, of any scale, such as those that
        `rann_jax.ensemble --weights fitted` writes to its table; None means equal weights.
      batch_size: largest number of windows computed together; None means 16, or 4 on a CPU.

    Attributes:
      taggers: the models.
      rule, weights: as given.

    Raises:
      ConfigError: the rule is unknown, there are fewer than two models, the weights do not fit, or two models
        cannot be fused; the message says which, and why.
    """

    def __init__(
        self,
        taggers: Sequence[Tagger],
        *,
        rule: str = DEFAULT_RULE,
        weights: Sequence[float] | None = None,
        batch_size: int | None = None,
    ):
        if rule not in fusion.RULES:
            raise ConfigError(f"rule={rule!r}: use one of {', '.join(fusion.RULES)}")
        check_alike(taggers)
        first = taggers[0]
        self.taggers = tuple(taggers)
        self.weights = checked_weights(weights, rule, len(taggers))
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
            fused_probs = fusion.fuse(rule, probs, task=self.task, weights=self.weights)
            return WindowProbabilities(fused_probs, by_window, jnp.swapaxes(probs, 0, 1))

        self._fused = jax.jit(fused, compiler_options=xla_options())

    @classmethod
    def load(
        cls,
        workdirs: Sequence[str | Path],
        *,
        rule: str = DEFAULT_RULE,
        weights: Sequence[float] | None = None,
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
        return cls(taggers, rule=rule, weights=weights, batch_size=batch_size)

    def __reduce__(self) -> Any:  # the compiled programs cannot be pickled
        made = functools.partial(type(self), rule=self.rule, weights=self.weights, batch_size=self.batch_size)
        return made, (self.taggers,)

    def _description(self) -> str:
        names = "; ".join(tagger.name for tagger in self.taggers)
        return f"{self.rule} of [{names}], {super()._description()}"

    def infer(self, windows: np.ndarray) -> WindowProbabilities:
        """Return fused probabilities (W, C) of windows (W, crop_samples), the conflict, and each model's.

        Raises:
          ValueError: the windows have another shape.
        """
        return self._in_batches(self._fused, self._variables, windows)

    def embed(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return the embeddings of a sound by all models in their order, one after the other: (D,).

        Raises:
          ValueError: as for `tag`.
        """
        return np.concatenate([tagger.embed(wave, sample_rate) for tagger in self.taggers])

    def embed_windows(self, windows: np.ndarray) -> np.ndarray:
        """Return the embeddings of windows (W, crop_samples) by all models, one after the other: (W, D).

        Raises:
          ValueError: as for `predict`.
        """
        return np.concatenate([tagger.embed_windows(windows) for tagger in self.taggers], axis=1)

    @property
    def embedding_size(self) -> int:
        """The size D of an embedding, the sum of the models' sizes, found without computing one."""
        return sum(tagger.embedding_size for tagger in self.taggers)


def check_alike(taggers: Sequence[Tagger]) -> None:
    """Raise ConfigError unless two models or more have the same classes and hear the same windows."""
    if len(taggers) < 2:
        raise ConfigError("an ensemble needs two models or more")
    for number, other in enumerate(taggers[1:], start=2):
        for what in ("labels", "task", "sample_rate", "window_seconds"):
            mine, theirs = getattr(taggers[0], what), getattr(other, what)
            if mine != theirs:
                shown = "" if what == "labels" else f" ({mine} and {theirs})"
                raise ConfigError(
                    f"models 1 and {number} differ in their {what}{shown}: fuse only models of the same "
                    "classes that hear the same windows"
                )


def checked_weights(
    weights: Sequence[float | str] | None, rule: str, models: int, option: str = "weights"
) -> tuple[float, ...] | None:
    """Return the weights as numbers; `option` is their name in messages.

    Raises:
      ConfigError: they are not one number per model, negative or all zero, or the rule takes none.
    """
    if weights is None:
        return None
    if rule != "wa":
        raise ConfigError(f"{option}: only the rule wa takes weights, not {rule}: leave one of the two out")
    try:
        if isinstance(weights, str):
            raise TypeError("digits would be read as numbers")
        numbers = tuple(map(float, weights))
        fusion.weighted_average(np.ones((models, 1)), numbers)  # refuses what it cannot use
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{option}: give {models} numbers, one per model, not negative and not all zero"
        ) from error
    return numbers


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of programs that apply one or several trained models; `load` takes their values."""
    add = parser.add_argument
    add("--rule", choices=tuple(fusion.RULES), help=f"how several models are fused (default: {DEFAULT_RULE})")
    add(
        "--weights",
        metavar="W,W",
        help="weights of the models for --rule wa, such as 0.6,0.4 (default: equal)",
    )
    add(
        "--checkpoint",
        choices=("latest", "best"),
        default="latest",
        help="checkpoint to load (default: %(default)s)",
    )
    add("--batch-size", type=int, metavar="N", help="windows computed together (default: 16; on a CPU, 4)")


def load(
    workdirs: Sequence[Path],
    rule: str | None,
    weights: str | None,
    checkpoint: str,
    batch_size: int | None,
) -> Listener:
    """Load one model, or an ensemble of several, for programs with the options --rule and --weights.

    Raises:
      ConfigError: a workdir has no such checkpoint, the models cannot be fused, or a rule or weights are
        given for a single model, or weights that do not fit.
    """
    if len(workdirs) == 1:
        for option, given in (("--rule", rule), ("--weights", weights)):
            if given is not None:
                raise ConfigError(
                    f"{option}={given} fuses several models: add another workdir, or leave {option} out"
                )
        return Tagger.load(workdirs[0], checkpoint=checkpoint, batch_size=batch_size)
    rule = DEFAULT_RULE if rule is None else rule
    # Checked before the models are loaded, which takes a while.
    shares = None if weights is None else weights.split(",")
    numbers = checked_weights(shares, rule, len(workdirs), f"--weights={weights}")
    return TaggerEnsemble.load(
        workdirs, rule=rule, weights=numbers, checkpoint=checkpoint, batch_size=batch_size
    )

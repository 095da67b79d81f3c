"""Weights of the weighted average: given, or fitted on clips other than the scored ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from rann_jax import fusion
from rann_jax.comparison import Weights
from rann_jax.errors import ConfigError
from rann_jax.predictions import Predictions


def fitted_on(others: Mapping[str, Predictions], scored: Predictions) -> Weights:
    """Return weights fitted, separately for every subset, on clips other than the scored ones.

    Raises:
      ConfigError: a clip is in both splits.
    """
    first = next(iter(others.values()))
    shared = np.intersect1d(first.ids, scored.ids)
    if len(shared):
        raise ConfigError(f"--fit-split shares {len(shared)} clips with the scored split: name another split")

    def weights(subset: Sequence[str]) -> Sequence[float]:
        probs = np.stack([others[name].probabilities for name in subset])
        return fusion.fit_weights(probs, first.targets, task=first.task).tolist()

    return weights


def given(text: str, names: Sequence[str]) -> Weights:
    """Return weights from text such as '0.5,0.3,0.2', in the order of the models.

    Raises:
      ConfigError: the text is not one positive number per model.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--weights {text}: give equal, fitted, or one number per model") from error
    if len(values) != len(names) or not np.isfinite(values).all() or min(values) <= 0:
        raise ConfigError(f"--weights {text}: give {len(names)} positive numbers, one per model")
    share = dict(zip(names, values, strict=True))
    return lambda subset: [share[name] for name in subset]

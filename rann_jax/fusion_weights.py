"""Weights of the weighted average: given, or fitted on clips other than the scored ones."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rann_jax.errors import ConfigError
from rann_jax.predictions import Predictions

Weights = Callable[[Sequence[str]], Sequence[float]]  # names of a subset -> weights of its average


def fit(probs: np.ndarray, targets: np.ndarray, task: str, tolerance: float = 1e-6) -> np.ndarray:
    """Return the weights that maximise the likelihood of the targets, by expectation maximisation.

    The log-likelihood is concave in the weights. Iteration ends when it is provably within `tolerance` nats
    per example of its maximum, or after 10,000 rounds.

    Args:
      probs: (M, n, C) probabilities on a split other than the one to be scored.
      targets: (n, C) multi-hot.
      task: "classification" or "tagging".

    Returns:
      (M,), summing to 1.

    >>> fit(np.array([[[0.9, 0.1]], [[0.2, 0.8]]]), np.array([[1, 0]]), "classification").round(3)
    array([1., 0.])
    """
    probs = probs.astype(np.float64)
    if task == "tagging":
        likelihood = np.where(targets > 0, probs, 1 - probs).reshape(len(probs), -1)
    else:
        likelihood = (probs * targets).sum(-1)
    likelihood = np.maximum(likelihood, 1e-7)  # (ours) no single confident error may dominate
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(10_000):
        gain = (likelihood / (weights @ likelihood)).mean(axis=1)
        if gain.max() < 1 + tolerance:  # the log-likelihood is at most log(max gain) below its maximum
            break
        weights = weights * gain
    return weights / weights.sum()


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
        return fit(probs, first.targets, first.task).tolist()

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

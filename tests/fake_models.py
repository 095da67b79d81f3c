"""Models that need no network, for tests of everything around one."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from rann_jax.tagging.listener import Listener
from rann_jax.tagging.timeline import WindowProbabilities

RATE = 8000
ZADEH = ([0.99, 0.01, 0.0], [0.0, 0.01, 0.99])  # two models of Zadeh's paradox


class Loudness(Listener):
    """Scores how loud each window of 0.1 s is."""

    labels, task, sample_rate, crop_samples, batch_size = ("loud", "quiet"), "classification", RATE, 800, 16

    def infer(self, windows):
        loud = np.abs(windows).max(axis=1)
        return WindowProbabilities(np.stack([loud, 1 - loud], axis=1))


def constant(probabilities, **changes) -> SimpleNamespace:
    """Return what TaggerEnsemble needs of a Tagger that gives every window the same probabilities."""
    answer = jnp.array(probabilities, jnp.float32)
    attributes = {
        "labels": ("dog", "cat", "rain"),
        "task": "classification",
        "sample_rate": RATE,
        "crop_samples": 400,
        "window_seconds": 0.05,
        "variables": answer,
        "step": lambda variables, windows: jnp.tile(variables, (len(windows), 1)),
    }
    return SimpleNamespace(**attributes | changes)

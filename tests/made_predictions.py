"""Predictions of random models on forty clips of three classes, for tests of what is made of predictions."""

import numpy as np

from rann_jax.saved.predictions import Predictions

CLIPS, LABELS = 40, np.array(["dog", "rain", "siren"])
TARGETS = np.eye(3, dtype=np.uint8)[np.arange(CLIPS) % 3]


def predicted(seed: int, sharpness: float = 2.0, first_clip: int = 0) -> Predictions:
    """Return the predictions of a model that is the better the greater `sharpness` is."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, TARGETS.shape) + sharpness * TARGETS
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Predictions(
        ids=np.array([f"clip{first_clip + i}" for i in range(CLIPS)]),
        targets=TARGETS,
        probabilities=probabilities.astype(np.float32),
        labels=LABELS,
        fingerprint="f00d",
        task="classification",
        step=12,
    )

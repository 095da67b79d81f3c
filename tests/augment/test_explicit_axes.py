"""Augmentation of batches on a mesh with explicit axes, as `jax.make_mesh` makes them by default."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rann_jax import augment

pytestmark = pytest.mark.fast

KEY = jax.random.key(0)
POLICY = augment.policy(
    {"gain": {}, "stretch": {"probability": 0.5}, "white_noise": {"probability": 0.5}, "mixup": {}},
    sample_rate=8000,
)


@pytest.mark.parametrize(
    "augmented",
    [
        lambda x, labels: augment.mixup(KEY, x, labels, alpha=1.0),
        lambda x, labels: augment.between_class(KEY, x, labels, sample_rate=8000),
        lambda x, labels: (augment.crop(KEY, x, samples=500), labels),
        lambda x, labels: POLICY.on_audio(KEY, x, labels, 0),
    ],
    ids=["mixup", "between_class", "crop", "policy"],
)
def test_a_batch_is_augmented_as_elsewhere(augmented):
    x = np.random.default_rng(0).standard_normal((8, 1600)).astype(np.float32)
    labels = np.eye(8, dtype=np.float32)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    split = NamedSharding(mesh, PartitionSpec("data"))
    out = jax.jit(augmented)(jax.device_put(x, split), jax.device_put(labels, split))
    for ours, plain in zip(out, jax.jit(augmented)(x, labels), strict=True):
        assert ours.sharding.spec[0] == "data"
        np.testing.assert_allclose(ours, plain, atol=1e-5)

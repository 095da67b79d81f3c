"""A network trains on every front end: a few steps on sound reduce the loss."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from rann_jax import optimizer
from rann_jax.devices.compiler import xla_options
from rann_jax.features import FRONT_ENDS, front_end
from rann_jax.state import create_state
from rann_jax.steps import make_train_step

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RATE, SECONDS, STEPS = 16000, 0.5, 8
# Front ends that pass on the waveform are trained in tests/models/test_wavegram.py.
IMAGES = sorted(name for name in FRONT_ENDS if "wavegram" not in name)


class TinyNetwork(nn.Module):
    """A network that compiles fast: it normalises the bins and has one convolution and one dense layer."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, axis=1)(x)
        x = nn.relu(nn.Conv(8, (3,))(x.swapaxes(1, 2))).mean(axis=1)
        return nn.Dense(2)(x)


def two_classes(clip) -> tuple[np.ndarray, np.ndarray]:
    """Return four excerpts of a real recording and four of noise, int16 (8, N), and their labels (8, 2)."""
    length = int(RATE * SECONDS)
    recording = clip(RATE)
    sounds = [np.resize(recording[start:], length) for start in (0, 500, 1000, 1500)]
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (4, length))
    audio = np.clip(np.concatenate([np.stack(sounds), noise]) * 32767, -32768, 32767)
    return audio.astype(np.int16), np.eye(2, dtype=np.float32)[[0] * 4 + [1] * 4]


@pytest.mark.parametrize("name", IMAGES)
def test_a_few_steps_reduce_the_loss(name, clip):
    audio, labels = two_classes(clip)
    made = front_end(name, sample_rate=RATE, seconds=SECONDS, frames_per_second=32)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-2, total_steps=STEPS)
    image = np.zeros((1, made.n_bins, made.n_frames), np.float32)
    state = jax.jit(lambda: create_state(TinyNetwork(), tx, image, seed=0))()
    step = make_train_step(TinyNetwork(), made, tx, task="classification", ema_decay=0.999)
    step = jax.jit(step, compiler_options=xla_options())
    before = state.params
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, {"audio": audio, "labels": labels})
        losses.append(float(metrics["loss"]))
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0] / 2
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), before, state.params)
    assert all(jax.tree.leaves(moved))

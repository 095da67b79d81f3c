"""Training and evaluation steps: sharding a batch changes no result, and keys depend on the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh

from configs.base import base
from rann_jax import augment, distributed, models, optimizer, steps
from rann_jax.devices.collectives import traffic
from rann_jax.devices.compiler import xla_options
from rann_jax.errors import ConfigError
from rann_jax.features.front_end import front_end
from rann_jax.models.norm import BatchNorm
from rann_jax.state import create_state
from rann_jax.tasks import TASKS

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CLASSES, SECONDS, RATE = 4, 0.5, 8000


@pytest.fixture(scope="module")
def parts():
    model = models.create("rann-0.5x4-1", num_classes=CLASSES, blocks_per_stage=1)
    features = front_end("log_mel", RATE, SECONDS, 32, n_bins=8)
    tx = optimizer.adam(schedule="constant", learning_rate=1e-3, total_steps=4)
    image = jnp.zeros((1, 8, 16), jnp.float32)
    state = jax.jit(lambda: create_state(model, tx, image, seed=3), compiler_options=xla_options())()
    return model, features, tx, state


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    audio = rng.integers(-(2**15), 2**15, (8, int(RATE * SECONDS)), dtype=np.int16)
    return {"audio": audio, "labels": np.eye(CLASSES, dtype=np.float32)[np.arange(8) % CLASSES]}


def mesh_of(count: int) -> Mesh:
    axis_types = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((count,), ("data",), axis_types=axis_types, devices=jax.devices()[:count])


def one_step(parts, batch, mesh: Mesh):
    model, features, tx, state = parts
    options = {"gain": {}, "white_noise": {"probability": 0.5}, "mixup": {"alpha": 1.0}, "spec_augment": {}}
    policy = augment.policy(options, sample_rate=RATE)
    step = steps.make_train_step(model, features, tx, task="classification", ema_decay=0.999, augment=policy)
    state = jax.device_put(state, distributed.replicated(mesh))
    return jax.jit(step, compiler_options=xla_options())(state, distributed.place_batch(batch, mesh))


def test_eight_devices_compute_the_same_as_one(parts, batch):
    """Batch statistics cover the global batch and augmentation is the same, so the loss is the same too."""
    (one, metrics_one), (eight, metrics_eight) = (one_step(parts, batch, mesh_of(n)) for n in (1, 8))
    assert float(metrics_one["loss"]) == pytest.approx(float(metrics_eight["loss"]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(one.batch_stats), jax.tree.leaves(eight.batch_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert int(one.step) == int(eight.step) == 1


def test_the_batch_is_not_sent_between_devices(parts):
    """Gradients and statistics are summed; of the batch, only the neighbours for mixing move."""
    model, features, tx, state = parts
    policy = augment.policy({"stretch": {}, "between_class": {}, "spec_augment": {}}, sample_rate=RATE)
    step = steps.make_train_step(model, features, tx, task="classification", ema_decay=0.999, augment=policy)
    mesh = distributed.data_mesh()
    place = distributed.split_batch(mesh)
    batch = {
        "audio": jax.ShapeDtypeStruct((16, int(RATE * SECONDS)), jnp.int16, sharding=place),
        "labels": jax.ShapeDtypeStruct((16, CLASSES), jnp.float32, sharding=place),
    }
    whole = distributed.replicated(mesh)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), state)
    step = jax.jit(step, out_shardings=whole, compiler_options=xla_options())
    compiled = step.lower(state, batch).compile()
    sent = traffic(compiled.as_text())
    assert sent.keys() == {"all-reduce", "collective-permute"}
    # One example, with sound and labels, and two sound levels.
    assert sent["collective-permute"].bytes == 4 * (int(RATE * SECONDS) + CLASSES + 2)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert 4 * parameters < sent["all-reduce"].bytes < 1.1 * 4 * parameters


def test_the_default_step_has_no_loop_on_a_gpu(parts):
    """A loop whose length depends on data would make the host wait for the GPU in every step."""
    model, features, tx, state = parts
    policy = augment.policy(base().augment.to_dict(), sample_rate=RATE)
    step = steps.make_train_step(model, features, tx, task="classification", ema_decay=0.999, augment=policy)
    batch = {
        "audio": jax.ShapeDtypeStruct((8, int(RATE * SECONDS)), jnp.int16),
        "labels": jax.ShapeDtypeStruct((8, CLASSES), jnp.float32),
    }
    lowered = jax.jit(step).trace(state, batch).lower(lowering_platforms=("cuda",))
    assert "stablehlo.while" not in lowered.as_text()


def test_ema_variables_are_the_average(parts, batch):
    model, features, tx, state = parts
    step = steps.make_train_step(model, features, tx, task="tagging", ema_decay=0.999)
    new, _ = jax.jit(step, compiler_options=xla_options())(state, jax.tree.map(jnp.asarray, batch))
    rate = (1 + 1) / (10 + 1)
    name = ("stage0_block0", "conv1", "kernel")
    old, now, mean = state.params, new.params, new.ema_variables["params"]
    for key in name:
        old, now, mean = old[key], now[key], mean[key]
    np.testing.assert_allclose(mean, rate * old + (1 - rate) * now, rtol=1e-4, atol=1e-7)


def test_every_task_has_a_loss_and_probabilities():
    assert tuple(steps.LOSSES) == tuple(steps.PROBABILITIES) == TASKS


def test_int16_is_scaled_and_probabilities_sum_to_one(parts, batch):
    model, features, _, state = parts
    step = jax.jit(steps.make_eval_step(model, features, task="classification"))
    from_int16 = step(state.ema_variables, jnp.asarray(batch["audio"]))
    as_float = jnp.asarray(batch["audio"].astype(np.float32) / 32768)
    np.testing.assert_array_equal(from_int16, step(state.ema_variables, as_float))
    np.testing.assert_allclose(from_int16.sum(-1), 1, rtol=1e-5)


class Steep(nn.Module):
    """Zero logits from zero weights, with a slope that `slopes` selects, beside a BatchNorm."""

    slopes: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        BatchNorm(name="norm")(1e25 * x if self.slopes == "of statistics" else x, train=train)
        weights = self.param("weights", nn.initializers.zeros, (1, CLASSES), jnp.float32)
        slopes = {"infinite": jnp.sqrt, "1e25": lambda w: 1e25 * w}
        return jnp.zeros((len(x), CLASSES)) + slopes.get(self.slopes, jnp.sin)(weights)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("slopes", "where"),
    [("one", None), ("infinite", "params"), ("1e25", "nu"), ("of statistics", "ema_batch_stats")],
)
def test_finite_is_false_if_the_new_state_is_not_finite(slopes, where):
    """Adam's second moment and a variance hold the square of 1e25, which overflows float32."""
    tx = optimizer.adam(schedule="constant", learning_rate=1e-3, total_steps=4)
    images, labels = np.random.default_rng(0).normal(size=(8, 3)), np.eye(CLASSES)[np.arange(8) % 3]
    batch = {"audio": jnp.asarray(images, jnp.float32), "labels": jnp.asarray(labels, jnp.float32)}
    model = Steep(slopes)
    step = steps.make_train_step(model, lambda audio: audio, tx, task="classification", ema_decay=0.999)
    state, metrics = jax.jit(step)(create_state(model, tx, batch["audio"], seed=0), batch)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    broken = {jax.tree_util.keystr(path) for path, leaf in leaves if not np.isfinite(leaf).all()}
    assert float(metrics["loss"]) == pytest.approx(np.log(CLASSES))
    assert bool(metrics["finite"]) == (where is None) == (not broken)
    assert where is None or any(f".{where}[" in name for name in broken)


class Drawing(nn.Module):
    """Keeps as a batch statistic what it draws with the dropout key, beside a BatchNorm."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        BatchNorm(name="norm")(x, train=train)
        drawn = self.variable("batch_stats", "drawn", jnp.zeros, ())
        if train:
            drawn.value = jax.random.uniform(self.make_rng("dropout"))
        return jnp.zeros((len(x), CLASSES)) + self.param("weights", nn.initializers.zeros, (1, CLASSES))


@pytest.mark.fast
def test_dropout_has_a_key_of_its_own_at_every_step():
    """The second half of the step's key; the first is the augmentations'."""
    tx = optimizer.adam(schedule="constant", learning_rate=1e-3, total_steps=4)
    batch = {"audio": jnp.ones((4, 3), jnp.float32), "labels": jnp.eye(CLASSES)}
    model = Drawing()
    train = steps.make_train_step(model, lambda audio: audio, tx, task="classification", ema_decay=0.999)

    @jax.jit
    def step(state):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        second = {"dropout": jax.random.split(state.step_key)[1]}
        _, kept = model.apply(variables, batch["audio"], train=True, mutable=["batch_stats"], rngs=second)
        return train(state, batch)[0], kept["batch_stats"]["drawn"]

    state = jax.jit(lambda: create_state(model, tx, batch["audio"], seed=7))()
    seen, expected = [], []
    for _ in range(2):
        state, drawn = step(state)
        seen.append(float(state.batch_stats["drawn"]))
        expected.append(float(drawn))
    assert seen == expected
    assert seen[0] != seen[1]


@pytest.mark.fast
def test_step_key_depends_on_seed_and_step_alone(parts):
    state = parts[3]
    later = state.replace(step=state.step + 1)
    other = state.replace(seed=state.seed + jnp.uint32(1))
    keys = [jax.random.key_data(s.step_key).tolist() for s in (state, later, other, state)]
    assert keys[0] == keys[3]
    assert len({tuple(key) for key in keys}) == 3


@pytest.mark.fast
@pytest.mark.parametrize("size", [0, 12])
def test_batches_that_devices_cannot_share_are_refused(size):
    with pytest.raises(ConfigError, match=f"config.batch_size={size}.*8 devices.*multiple of 8"):
        distributed.check_batch_size("batch_size", size, distributed.data_mesh())

"""Which checkpoints are kept, and what comes back from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax.checkpoint import Checkpoints, Record
from rann_jax.state import TrainState

BUNDLE = {"labels": ["dog", "cat"], "config": {"t_c": 4.0}, "fingerprints": {"train": "ab"}}


def state_at(step: int) -> TrainState:
    params = {"w": jnp.full((3,), step, jnp.float32)}
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats={},
        ema_params=params,
        ema_batch_stats={},
        opt_state=(),
        seed=jnp.asarray(5, jnp.uint32),
    )


@pytest.fixture
def workdir(tmp_path):
    """Six steps saved; the metric is best at step 2, and step 5 was not evaluated."""
    checkpoints = Checkpoints(tmp_path, "test/accuracy")
    for step, accuracy in {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.6, 5: None, 6: 0.8}.items():
        metrics = {} if accuracy is None else {"test/accuracy": accuracy, "test/mAP": 0.1}
        checkpoints.save(step, state_at(step), Record(step, step * 1.5, BUNDLE), metrics)
    checkpoints.close()
    return tmp_path


def test_latest_two_and_the_best_are_kept(workdir):
    kept = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert kept == {"2", "5", "6"}
    checkpoints = Checkpoints(workdir, "test/accuracy")
    assert checkpoints.latest_step == 6
    assert checkpoints.best_step == 2
    checkpoints.close()


@pytest.mark.parametrize("step", [None, 2, 5])
def test_state_and_record_come_back(workdir, step):
    checkpoints = Checkpoints(workdir, "test/accuracy")
    like = jax.eval_shape(lambda: state_at(0))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    state, record = checkpoints.restore(like, step)
    checkpoints.close()
    expected = step or 6
    assert int(state.step) == expected
    np.testing.assert_array_equal(state.params["w"], np.full(3, expected, np.float32))
    assert state.params["w"].devices() == {jax.devices()[1]}
    assert record == Record(expected, expected * 1.5, BUNDLE)


def test_an_unfinished_checkpoint_is_not_taken_for_a_whole_one(workdir):
    (workdir / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(workdir, "test/accuracy")
    assert checkpoints.latest_step == 6
    checkpoints.close()

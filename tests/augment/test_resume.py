"""A run with all augmentations of configs/esc50.py, interrupted and resumed, ends with identical bits."""

import shutil
from contextlib import closing

import jax
import numpy as np
import pytest

from configs.esc50 import AUGMENT
from input_pipeline import prepare
from rann_jax import distributed
from rann_jax.checkpoint import Checkpoints
from rann_jax.experiment import build, data_options
from rann_jax.train import train
from rann_jax.training.compiled import compiled_step
from tests import two_blocks

pytestmark = pytest.mark.usefixtures("quickly_compiled", "one_device")

TOTAL, INTERRUPTED = 4, 2


def trained(config, prepared, workdir):
    """Train from the workdir alone, as a new process would; return the last checkpoint's arrays by name."""
    experiment = build(config)
    train(experiment, prepared, workdir, show_progress=False)
    with closing(Checkpoints(workdir, config.best_metric)) as checkpoints:
        state, record = checkpoints.restore_newest(experiment.sharded_state(distributed.data_mesh()))
    assert record.batches == TOTAL
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state)}


def test_an_interrupted_run_ends_bit_identical(tmp_path, monkeypatch):
    config = two_blocks.get_config(f"steps={TOTAL}")
    config.augment = AUGMENT["all"]
    config.prepared_dir = str(tmp_path / "prepared")
    config.save_every = INTERRUPTED
    config.eval.splits = ()
    prepared = prepare(**data_options(config), progress=False)
    # The step is a pure function, so all calls can share it; compiling it takes ten seconds.
    step = compiled_step(build(config), distributed.data_mesh())
    monkeypatch.setattr("rann_jax.train.compiled_step", lambda experiment, mesh: step)
    whole = trained(config, prepared, tmp_path / "whole")

    last = tmp_path / "cut" / "checkpoints" / str(TOTAL)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(last)  # the state after a kill before the last step
    assert [path.name for path in last.parent.iterdir()] == [str(INTERRUPTED)]
    resumed = trained(config, prepared, tmp_path / "cut")

    assert resumed.keys() == whole.keys()
    for name, leaf in whole.items():
        np.testing.assert_array_equal(resumed[name], leaf, err_msg=name, strict=True)

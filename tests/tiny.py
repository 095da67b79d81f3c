"""The smallest experiment that exercises everything: synthetic sound, 16 bins, width 1, one block per stage.

    python -m rann_jax.main --config tests/tiny.py --workdir DIR

Shuffling over several epochs, random crops (clips are 1 to 2 s, crops 0.5 s), mixup and the one-cycle
schedule are all active.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from configs.base import base, parse_arg
from rann_jax.checkpoint import Checkpoints
from rann_jax.experiment import build
from rann_jax.saved.record import Record

SHRINK = 0.5


def get_config(arg: str | None = None) -> ConfigDict:
    preset = parse_arg(arg, steps=12)
    config = base()
    config.dataset = {"name": "quickstart", "train_clips": 40, "test_clips": 10, "seed": 0}
    config.sample_rate = 16000
    config.t_c = 0.5
    config.feature = {"name": "log_mel", "frames_per_second": 32, "n_bins": 16}
    config.model.name = "rann-0.5x4-1"
    config.model.blocks_per_stage = 1  # the deck has 4; compilation takes most of a short run
    config.batch_size = 8
    config.total_steps = preset["steps"]
    config.log_every = 2
    config.eval_every = 4
    config.save_every = 3
    config.eval.batch_size = 8
    return config


def filled(shapes: Any, seed: int) -> Any:
    """Return random arrays of these shapes; unlike a network's `init`, this needs no compilation."""
    rng = np.random.default_rng(seed)

    def array(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.ndim >= 2:  # kernels that shrink the signal, so that no class is certain
            values = SHRINK * rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        else:
            values = rng.uniform(0.5, 1.5, leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(array, shapes)


def write_workdir(
    workdir: Path, seed: int, labels: list[str], extra: Mapping[str, Any] = {}, **overrides
) -> Path:
    """Write a checkpoint with random weights, as a finished run leaves it, without training.

    `overrides` are keys of the config; `extra` is saved with it, but nothing reads it.
    """
    config = get_config()
    config.update_from_flattened_dict({"num_classes": len(labels), **overrides})
    experiment = build(config)
    state = filled(experiment.abstract_state(SingleDeviceSharding(jax.devices()[0])), seed)
    bundle = {"config": config.to_dict() | dict(extra), "labels": labels, "fingerprints": {}}
    checkpoints = Checkpoints(workdir, config.best_metric)
    checkpoints.save(1, state, Record(batches=1, seconds=0.0, bundle=bundle), {config.best_metric: 0.5})
    checkpoints.close()
    return workdir

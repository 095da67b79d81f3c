"""The smallest experiment that exercises everything: synthetic sound, 16 bins, width 1.

    python -m rann_jax.main --config tests/tiny.py --workdir DIR

Shuffling over several epochs, random crops (clips are 1 to 2 s, crops 0.5 s), mixup and the one-cycle
schedule are all active.
"""

from ml_collections import ConfigDict

from configs.base import base, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    preset = parse_arg(arg, steps=12)
    config = base()
    config.dataset = {"name": "quickstart", "train_clips": 40, "test_clips": 10, "seed": 0}
    config.sample_rate = 16000
    config.t_c = 0.5
    config.feature = {"name": "log_mel", "frames_per_second": 32, "n_bins": 16}
    config.model.name = "rann-0.5x4-1"
    config.batch_size = 8
    config.total_steps = preset["steps"]
    config.log_every = 2
    config.eval_every = 4
    config.save_every = 3
    config.eval.batch_size = 8
    return config

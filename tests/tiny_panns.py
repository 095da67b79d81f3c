"""The smallest PANN: CNN14 with a sixteenth of its channels, trained on one-second clips from a folder.

python -m rann_jax.main --config tests/tiny_panns.py --config.data_dir=DIR --workdir W
"""

from ml_collections import ConfigDict

from configs.audioset import panns_input
from configs.base import base, parse_arg
from configs.folder import own_sounds

WIDTH = 16


def get_config(arg: str | None = None) -> ConfigDict:
    preset = parse_arg(arg, classes=5, steps=4)
    config = base()
    own_sounds(config, "")
    config.splits = {"train": "train", "test": "test"}
    config.num_classes = preset["classes"]
    config.model = {"name": "cnn14", "width": WIDTH}
    panns_input(config)
    config.t_c = 1.0
    config.optimizer.schedule = "constant"
    config.ema_decay = 0.9
    config.augment = {}
    config.batch_size = config.eval.batch_size = 8
    config.total_steps = preset["steps"]
    config.log_every = config.eval_every = preset["steps"]
    config.save_every = 2
    config.best_metric = "test/accuracy"
    return config

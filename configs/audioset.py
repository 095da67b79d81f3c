"""AudioSet: 527 classes, several a clip; the deck's best system, RANN-8x4-6 on log-mel (mAP 0.443 there).

    python -m rann_jax.main --config configs/audioset.py --config.data_dir=DIR --workdir runs/audioset

From the deck and the paper: the network, crops of 8 s, 44.1 kHz, 128 mel bins and 128 frames a second, Adam
with one cycle up to 1e-3, batch 32, the moving average. Ours: the number of steps, bfloat16, no weight decay.
"""

from ml_collections import ConfigDict

from configs.base import base, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: feature, model."""
    preset = parse_arg(arg, feature="log_mel", model="rann-8x4-6")
    config = base()
    config.dataset = {"name": "audioset"}
    config.splits = {"train": "balanced+unbalanced", "test": "eval"}
    config.task = "tagging"
    config.num_classes = 527
    config.t_c = 8.0
    config.feature.name = preset["feature"]
    config.model.name = preset["model"]
    config.dtype = "bfloat16"
    config.total_steps = 600_000
    config.log_every = 100
    config.eval_every = 20_000
    config.save_every = 5_000
    return config

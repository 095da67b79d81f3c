"""AudioSet: 527 classes, several a clip; the deck's best system, RANN-8x4-6 on log-mel (mAP 0.443 there).

    python -m rann_jax.main --config configs/audioset.py --config.data_dir=DIR --workdir runs/audioset

DIR holds the official lists (class_labels_indices.csv, and those of eval_segments.csv,
balanced_train_segments.csv, unbalanced_train_segments.csv whose sound is there) and, in any folders, the cut
clips, named by YouTube id or with PANNs' Y before it: files, HDF5 of PANNs or PaSST, tar shards.
`:size=small` is for a few CPU cores and trains on the balanced list alone. Neither was run on AudioSet yet.

From the deck and the paper: the network, crops of 8 s, 44.1 kHz, 128 mel bins and 128 frames a second, Adam
with one cycle up to 1e-3, batch 32, the moving average. From PANNs: class-balanced sampling. Ours: the
number of steps, bfloat16, no weight decay, how many clips may be missing, all of size=small.
"""

from ml_collections import ConfigDict

from configs.base import base, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """Presets: size (deck, small), feature, model (of size=deck), classes (527, or of own lists)."""
    preset = parse_arg(arg, size="deck", feature="log_mel", model="rann-8x4-6", classes=527)
    if preset["size"] not in SIZES:
        raise ValueError("presets: size is deck or small")
    config = base()
    # Videos vanish: no copy is whole. What is missing is counted, listed and told at every run.
    config.dataset = {"name": "audioset", "classes": preset["classes"]}
    config.prepare.max_failed_share = 0.5
    config.splits = {"train": "balanced+unbalanced", "test": "eval"}
    config.sampling = "balanced"
    config.task = "tagging"
    config.num_classes = preset["classes"]
    config.feature.name = preset["feature"]
    config.model.name = preset["model"]
    SIZES[preset["size"]](config)
    return config


def deck(config: ConfigDict) -> None:
    """The deck's geometry, for accelerators."""
    config.t_c = 8.0
    config.dtype = "bfloat16"
    config.total_steps = 600_000
    config.log_every = 100
    config.eval_every = 20_000
    config.save_every = 5_000


def small(config: ConfigDict) -> None:
    """For a few CPU cores: the balanced list, 16 kHz, an eighth of the pixels, a sixth of the width."""
    config.splits.train = "balanced"
    config.sample_rate = 16000
    config.t_c = 4.0
    config.feature.frames_per_second = 64
    config.feature.n_bins = 64
    config.model.name = "rann-4x4-1"
    config.batch_size = 16
    config.total_steps = 4000
    config.eval_every = 1000
    config.save_every = 500


SIZES = {"deck": deck, "small": small}

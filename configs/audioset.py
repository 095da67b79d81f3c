"""AudioSet: 527 classes, several per clip; the deck's best system, RANN-8x4-6 on log-mel (mAP 0.443 there).

    python -m rann_jax.main --config configs/audioset.py --config.data_dir=DIR --workdir runs/audioset

DIR holds the official lists: class_labels_indices.csv, and those of eval_segments.csv,
balanced_train_segments.csv and unbalanced_train_segments.csv whose sound is present. It also holds, in any
folders, the cut clips, named by YouTube id, with or without PANNs' leading Y: as files, as HDF5 of PANNs or
PaSST, or as tar shards. `:size=small` is for a few CPU cores and trains on the balanced list alone.
`:model=cnn14`, `resnet38` and `wavegram_logmel_cnn14` are the PANNs baselines of the deck's table, with their
published recipe. None of these has been run on AudioSet yet.

From the deck and the paper: the network, crops of 8 s, 44.1 kHz, 128 mel bins and 128 frames per second, Adam
with one cycle up to 1e-3, batch 32, the moving average. From PANNs: class-balanced sampling. (ours): the
number of steps, bfloat16, no weight decay, how many clips may be missing, everything in size=small.

The baselines' recipe (published code): 32 kHz, 10 s, Adam at a constant 1e-3 with amsgrad, batch 32, mixup of
the log-mel with alpha 1, SpecAugment with two stripes of 64 frames and two of 8 bands, class-balanced
sampling, no moving average. Two things differ here. The stripes are applied before the image's first
BatchNorm and filled with the image's mean; in the published code they are applied after it and filled with
zeros. With a wavegram, the waveforms are mixed; in the published code both images are. The number of steps is
(ours).
"""

from ml_collections import ConfigDict

from configs.base import base, hold_out, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: size (deck, small), feature, model, classes (527, or the number in your own
    lists), valid (a list held out of training, as in valid=balanced; see `hold_out`).

    Without the preset model, the network is the size's own RANN. PANNs models bring their size and feature.
    """
    preset = parse_arg(arg, {"size": SIZES}, size="deck", feature="log_mel", model="", classes=527, valid="")
    config = base()
    # Videos vanish, so no copy is complete. Missing clips are counted, listed and reported at every run.
    config.dataset = {"name": "audioset", "classes": preset["classes"]}
    config.prepare.max_failed_share = 0.5
    config.splits = {"train": "balanced+unbalanced", "test": "eval"}
    config.sampling = "balanced"
    config.task = "tagging"
    config.num_classes = preset["classes"]
    config.feature.name = preset["feature"]
    SIZES[preset["size"]](config)
    config.model.name = preset["model"] or config.model.name
    hold_out(config, preset["valid"])
    if preset["model"] in PANNS:
        if preset["size"] != "deck" or preset["feature"] != "log_mel":
            raise ValueError(
                f"preset model={preset['model']} sets its own size and feature: leave those two presets out"
            )
        panns(config)
    return config


def panns_input(config: ConfigDict) -> None:
    """Set the input of the published weights of config.model.name: 10 s at 32 kHz in PANNs' log-mel."""
    with_waveform = config.model.name.startswith("wavegram")
    config.sample_rate = 32000
    config.t_c = 10.0
    config.feature = {
        "name": "panns_log_mel+wavegram" if with_waveform else "panns_log_mel",
        "frames_per_second": 100.0,
        "n_bins": 64,
    }


def panns(config: ConfigDict) -> None:
    """Set PANNs' published recipe."""
    panns_input(config)
    config.dtype = "float32"
    config.optimizer.schedule = "constant"
    config.optimizer.amsgrad = True
    config.ema_decay = 0.0
    mixup = "mixup" if config.feature.name.endswith("wavegram") else "feature_mixup"
    config.augment = {
        mixup: {"alpha": 1.0},
        "spec_augment": {"time_share": 64 / 1001, "frequency_share": 8 / 64},  # of an image of 64 x 1001
    }


def deck(config: ConfigDict) -> None:
    """Set the deck's geometry, for accelerators."""
    config.model.name = "rann-8x4-6"
    config.t_c = 8.0
    config.dtype = "bfloat16"
    config.total_steps = 600_000
    config.log_every = 100
    config.eval_every = 20_000
    config.save_every = 5_000


def small(config: ConfigDict) -> None:
    """Adapt to a few CPU cores: the balanced list, 16 kHz, an eighth of the pixels, a sixth of the width."""
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


PANNS = ("cnn14", "resnet38", "wavegram_logmel_cnn14")
SIZES = {"deck": deck, "small": small}

"""Fine-tune a trained network on your own folder of sounds; the folder and the weights are all it needs.

    python -m rann_jax.main --config configs/finetune.py:data=DIR,init_from=Cnn14_mAP=0.431.pth \
        --workdir runs/mine

The weights come from a workdir, whose network, front end and sample rate are adopted, or from a published
PANNs file (network= names its network; the default is cnn14). DIR, and presets such as csv= and
label_column=, are as in configs/folder.py. If the classes differ, the last layer is new. `:train=probe`
trains only the last layer: a linear classifier of the embeddings.

From the paper: a constant learning rate of 1e-4. (ours): the tenfold rate of the last layer, steps,
augmentation. Other choices are config keys, such as --config.optimizer.frozen="('bn0','conv_block[1-4]')".
"""

from pathlib import Path

from ml_collections import ConfigDict

from configs.audioset import PANNS, panns_input
from configs.base import base, parse_arg
from configs.folder import LAST, own_sounds
from input_pipeline.datasets.folder import Folder
from rann_jax.errors import ConfigError
from rann_jax.saved.workdir import load_config

# The keys that weights depend on.
INHERITED = ("sample_rate", "t_c", "feature", "model", "dtype")
TRAIN = ("all", "probe")


def get_config(arg: str | None = None) -> ConfigDict:
    """Return the config. Presets: as in configs/folder.py, data (the folder), fold, valid and those of
    `configs.folder.own_sounds`; init_from (workdir or file), network (of a file; default cnn14), train (all,
    probe).
    """
    own = {"init_from": "", "network": "", "train": "all", "fold": LAST, "valid": ""}
    preset = parse_arg(arg, {"train": TRAIN}, data="", **own, **Folder.OPTIONS)
    source, network = preset["init_from"], preset["network"]
    if preset["data"] and not source:  # otherwise random weights would be trained at fine-tuning's rate
        raise ValueError("preset init_from is missing: add init_from=PATH, a workdir or a PyTorch file")
    config = base()
    own_sounds(config, preset["data"], preset, fold=preset["fold"], valid=preset["valid"])
    config.init_from = source
    if source and (workdir := Path(source).expanduser()).is_dir():
        if network:
            raise ValueError(f"preset network={network}: the workdir sets the network: leave this preset out")
        inherit(config, workdir)
    elif network in ("", *PANNS):
        config.model.name = network or "cnn14"
        panns_input(config)
    else:
        raise ValueError(
            f"preset network={network!r} must be one of {', '.join(PANNS)}: to use another network, make a "
            "workdir of it with rann_jax.convert and name that as init_from"
        )
    if source and not preset["data"]:
        raise ValueError("preset data is missing: add data=DIR, the folder of your sounds")
    config.optimizer.schedule = "constant"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.head_learning_rate = 1e-3
    config.total_steps = 1000
    config.augment = {"mixup": {"alpha": 0.3}, "spec_augment": {}}
    if preset["train"] == "probe":
        config.optimizer.frozen = ("trunk",)
        config.augment = {}
    return config


def inherit(config: ConfigDict, workdir: Path) -> None:
    """Copy the keys that the weights of a workdir depend on."""
    try:
        source = load_config(workdir, "init_from", "the folder of a run or a PyTorch file")
    except ConfigError as error:
        raise ValueError(f"preset init_from: {error}") from error
    for key in INHERITED:
        config[key] = source[key]

"""A workload that is timed on both sides: a training step or an inference of one network.

The config is that of AudioSet with 527 classes. RANNs use mixup of waveforms and SpecAugment; CNN14 uses
PANNs' recipe: mixup of the log-mel, SpecAugment, AMSGrad, no moving average.
"""

import argparse
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import audioset
from rann_jax import models
from rann_jax.experiment import Experiment, build
from rann_jax.models.complexity import count_macs

AUGMENT: dict[str, dict] = {"mixup": {"alpha": 1.0}, "spec_augment": {}}
TRAINING, INFERENCE = "training", "inference"
WAVEFORM, FEATURES = "waveform", "features"


def network_name(text: str) -> str:
    """Return the name of a network that has a PyTorch twin here.

    Raises:
      argparse.ArgumentTypeError: the network has no twin.
    """
    try:
        if text == "cnn14" or models.crop_seconds(text):
            return text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    raise argparse.ArgumentTypeError(f"{text!r} has no PyTorch twin: use cnn14 or a rann-... name")


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is computed, on how many clips, and how often.

    Attributes:
      kind: "training" (a whole step) or "inference".
      network: `rann-...` or cnn14.
      source: "waveform" (int16 PCM) or "features" (images from the front end, not augmented).
      batch: clips in a batch.
      dtype: "float32" or "bfloat16" for the network; front ends and parameters are float32.
      seconds: length of CNN14's clips; a RANN's name determines its own.
      steps: steps between two readings of the clock.
      repeats: readings of the clock.
      torch_compile: mode of torch.compile, or "none".
    """

    kind: str
    network: str
    source: str
    batch: int
    dtype: str = "float32"
    seconds: float = 10.0
    steps: int = 1
    repeats: int = 3
    torch_compile: str = "none"

    def config(self) -> ConfigDict:
        """Return the config with which training would run this workload."""
        config = audioset.get_config("model=cnn14" if self.network == "cnn14" else None)
        config.model.name = self.network
        config.t_c = models.crop_seconds(self.network) or self.seconds
        config.dtype = self.dtype
        config.batch_size = self.batch
        if self.network != "cnn14":
            config.augment = AUGMENT
        return config

    def experiment(self) -> Experiment:
        """Build network, front end, optimiser and augmentation as training does."""
        return build(self.config())

    def batch_shapes(self, experiment: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shapes of `audio`, PCM (B, N) or images (B, F, T), and of `labels` (B, 527)."""
        pcm = jax.ShapeDtypeStruct((self.batch, experiment.crop_samples), jnp.int16)
        images = jax.ShapeDtypeStruct((self.batch, *experiment.image_shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((self.batch, experiment.config.num_classes), jnp.float32)
        return {"audio": pcm if self.source == WAVEFORM else images, "labels": labels}

    def host_batch(self, experiment: Experiment, seed: int) -> dict[str, np.ndarray]:
        """Return noise of these shapes in host memory; images are in dB around -40."""
        shapes, rng = self.batch_shapes(experiment), np.random.default_rng(seed)
        audio, labels = shapes["audio"], shapes["labels"]
        if self.source == WAVEFORM:
            sound = rng.integers(-(2**14), 2**14, audio.shape, dtype=np.int16)
        else:
            sound = rng.standard_normal(audio.shape, np.float32) * 15 - 40
        return {"audio": sound, "labels": (rng.random(labels.shape) < 0.01).astype(np.float32)}

    def flops(self, experiment: Experiment) -> float:
        """Count the network's FLOPs: two per multiply-add, and training as three forward passes."""
        images = jax.ShapeDtypeStruct((1, *experiment.image_shape), jnp.float32)
        state = experiment.shapes
        macs = count_macs(jax.make_jaxpr(experiment.model.apply)(state.ema_variables, images).jaxpr)
        return (6.0 if self.kind == TRAINING else 2.0) * macs * self.batch


def nbytes(tree) -> int:
    """Return the bytes of a tree of arrays or of shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

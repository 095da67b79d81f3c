"""RANN: residual audio neural networks with custom temporal strides.

Source: S. Verbitskiy, slide deck "Residual Audio Neural Networks with Multiple Features for Sound
Classification" (2020), and the later paper "ERANNs" (arXiv 2106.01621). A name `rann-{t_c}x{t_m}-{W}`
gives the crop length t_c in seconds, the temporal decrease t_m in {1, 2, 4, 8} and the widening factor W.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rann_jax.features.front_ends.base import Inputs
from rann_jax.models.convolution import Convolution, added
from rann_jax.models.convolution.packed import columns_for, packed, unpacked
from rann_jax.models.dense import precise_dense
from rann_jax.models.norm import BatchNorm
from rann_jax.models.pooling import largest
from rann_jax.models.remat import rematerialised
from rann_jax.models.wavegram import Wavegram

TEMPORAL_DECREASES = (1, 2, 4, 8)  # t_m = 2^s; the deck's table has no others
BLOCKS_PER_STAGE = 4  # (deck)
BASE_CHANNELS = 8  # stage i has 8 W 2^i channels
LEAKY_SLOPE = 0.01
HEAD = "fc2"  # the last layer
FORM = "rann-{t_c}x{t_m}-{W}"  # of the names

leaky_relu = partial(nn.leaky_relu, negative_slope=LEAKY_SLOPE)


def temporal_strides(t_m: int) -> tuple[int, ...]:
    """Return the temporal strides of stages 0 to 4: 1 for stage 0, 4 for stages 1 to log2(t_m), then 2.

    Raises:
      ValueError: t_m is not 1, 2, 4 or 8.
    """
    if t_m not in TEMPORAL_DECREASES:
        raise ValueError(f"t_m must be one of {TEMPORAL_DECREASES}, not {t_m!r}")
    fours = TEMPORAL_DECREASES.index(t_m)
    return (1, *(4 if i <= fours else 2 for i in (1, 2, 3)), 2)


class ResidualBlock(nn.Module):
    """The deck's ARB: two pre-activated convolutions and a shortcut that takes the raw input.

    The input is (B, F, T, C), the output (B, ceil(F / x), ceil(T / y), channels) for strides (x, y). With a
    temporal stride of 4 the kernels have lengths 6 and 5 in time, otherwise 3, and T must be a multiple of 4.
    The shortcut is the identity, or a 1x1 convolution if channels or strides change. `shortcut_norm` puts a
    BatchNorm after this convolution (the deck's parameter counts require it; the paper's figure has none).
    `columns` says how many columns are packed in the input and in the output (`convolution.packed`).
    """

    channels: int
    strides: tuple[int, int] = (1, 1)
    shortcut_norm: bool = True
    columns: tuple[int, int] = (1, 1)
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Apply the block; with `train`, normalise by the batch and update the running statistics."""
        before, after = self.columns
        norm = partial(BatchNorm, dtype=self.dtype)
        conv = partial(Convolution, self.channels, dtype=self.dtype)
        first = partial(conv, strides=self.strides, columns=self.columns)
        second = partial(conv, columns=(after, after))
        long = self.strides[1] == 4
        # Padding is explicit: 'SAME' with stride 2 would not be the symmetric padding of the original.
        y = norm(slope=LEAKY_SLOPE, columns=before, name="norm1")(x, train=train)
        y = first(size=(3, 6 if long else 3), padding=((1, 1), (1, 1)), name="conv1")(y)
        y = norm(slope=LEAKY_SLOPE, columns=after, name="norm2")(y, train=train)
        time_padding = (2, 2) if long else (1, 1)
        y = second(size=(3, 5 if long else 3), padding=((1, 1), time_padding), name="conv2")(y)
        if x.shape[-1] != before * self.channels or self.strides != (1, 1):
            x = first(size=(1, 1), name="shortcut_conv")(x)
            if self.shortcut_norm:
                x = norm(columns=after, name="shortcut_norm")(x, train=train)
        return added(x, y)


class RANN(nn.Module):
    """Residual audio neural network: a feature image (B, F, T) in, logits (B, num_classes) out.

    The network does not depend on the sample rate: F is any number of bins, T any multiple of 4^log2(t_m).
    The first normalisation is per frequency bin, not per channel. The layout is that of the deck's tables;
    the global pooling (average plus maximum) is the paper's.

    Instead of an image the network also takes {"waveform": (B, N)} and learns the image from it (`Wavegram`;
    one of the deck's features). Given {"image": (B, F, T), "waveform": (B, N)}, it adds the learned image as
    a second channel (ours).

    Attributes:
      num_classes: number of logits.
      t_m: temporal decrease, 1, 2, 4 or 8.
      width: widening factor W; stage i has 8 W 2^i channels.
      blocks_per_stage: residual blocks in each of the five stages; 4 is the deck's network (others are ours).
      shortcut_norm: put a BatchNorm after each 1x1 shortcut convolution.
      wavegram_shape: shape (F, T) of the image learned from a waveform, if the input has no image.
      dtype: type of the computation; parameters and statistics stay float32.
      remat: store only each block's input for the backward pass, and recompute the rest.
      lanes: channels that a device's matrix units take at once. Stages with at most half as many pack
        neighbouring columns to fill them (`convolution.packed`), which changes results by rounding only. None
        packs none, and leaves the choice to `rann_jax.devices.compiler.suited`.
    """

    num_classes: int
    t_m: int = 4
    width: int = 1
    blocks_per_stage: int = BLOCKS_PER_STAGE
    shortcut_norm: bool = True
    wavegram_shape: tuple[int, int] | None = None
    dtype: jax.typing.DTypeLike = jnp.float32
    remat: bool = False
    lanes: int | None = None

    @nn.compact
    def __call__(self, x: Inputs, *, train: bool = False) -> jax.Array:
        """Return logits (B, num_classes), float32, for feature images x (B, F, T), or a dict as above.

        Raises:
          ValueError: x is neither (B, F, T) nor such a dict, T does not fit the strides, or
            `blocks_per_stage` is below 1.
        """
        embedding = self.embed(x, train=train)
        return precise_dense(self.num_classes, name=HEAD, dtype=embedding.dtype)(embedding)

    @nn.compact
    def embed(self, x: Inputs, *, train: bool = False) -> jax.Array:
        """Return embeddings (B, 128 W), float32: the input of the last layer."""
        if self.blocks_per_stage < 1:
            raise ValueError(f"blocks_per_stage must be at least 1, not {self.blocks_per_stage}")
        y = self.image(x, train=train)
        block_class = rematerialised(ResidualBlock) if self.remat else ResidualBlock
        frames, lanes = y.shape[2], self.lanes or 1
        columns = columns_for(BASE_CHANNELS * self.width, frames, lanes)
        y = packed(y, columns)
        for stage, time_stride in enumerate(temporal_strides(self.t_m)):
            channels = BASE_CHANNELS * self.width * 2**stage
            frames = -(-frames // time_stride)
            before, columns = columns, columns_for(channels, frames, lanes)
            for block in range(self.blocks_per_stage):
                first = stage > 0 and block == 0
                y = block_class(
                    channels,
                    strides=(2, time_stride) if first else (1, 1),
                    shortcut_norm=self.shortcut_norm,
                    columns=(before if first else columns, columns),
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )(y, train)
        y = unpacked(y, columns)
        # From here on at least float32: means over many values, then logits that go into exponentials.
        y = y.astype(np.promote_types(self.dtype, np.float32))
        y = y.mean(axis=(1, 2)) + largest(y.reshape(y.shape[0], -1, y.shape[-1]))
        y = precise_dense(y.shape[-1], name="fc1", dtype=y.dtype)(y)
        return leaky_relu(y)

    @nn.compact
    def image(self, x: Inputs, *, train: bool) -> jax.Array:
        """Return the first block's input: the normalised image (B, F, T, 1); 2 channels for both inputs."""
        norm = partial(BatchNorm, axis=1, dtype=self.dtype)
        inputs = x if isinstance(x, Mapping) else {"image": x}
        if not inputs or set(inputs) - {"image", "waveform"}:
            raise ValueError(f"RANN takes an image, a waveform or both, not {sorted(inputs) or 'nothing'}")
        channels = []
        shape: Sequence[int] | None = self.wavegram_shape
        if "image" in inputs:
            check_frames(inputs["image"].shape, self.t_m)
            channels.append(norm(name="input_norm")(inputs["image"], train=train))
            _, *shape = inputs["image"].shape
        if "waveform" in inputs:
            if shape is None:
                raise ValueError(
                    "a waveform alone needs the option wavegram_shape=(F, T), the image to learn"
                )
            learned = Wavegram(shape[0], shape[1], dtype=self.dtype, name="wavegram")(
                inputs["waveform"], train=train
            )
            check_frames(learned.shape, self.t_m)
            channels.append(norm(name="wavegram_norm")(learned, train=train))
        return jnp.stack(channels, axis=-1)


def check_frames(shape: tuple[int, ...], t_m: int) -> None:
    """Raise ValueError unless feature images of this shape (B, F, T) fit a RANN with this t_m.

    In a block with temporal stride 4, trunk and shortcut have equal lengths only if the block's T is a
    multiple of 4. Hence T at the input must be a multiple of 4^log2(t_m).
    """
    if len(shape) != 3:
        raise ValueError(f"RANN takes feature images (B, F, T), not shape {shape}")
    multiple = 4 ** TEMPORAL_DECREASES.index(t_m)
    if shape[-1] == 0 or shape[-1] % multiple:
        raise ValueError(
            f"RANN with t_m={t_m} needs a number of frames T that is a multiple of {multiple}, not "
            f"{shape[-1]}: T = frames_per_second * t_c"
        )


def parse_name(name: str) -> tuple[float, int, int]:
    """Return (t_c in seconds, t_m, W) of a name such as `rann-8x4-6`; t_c may be a decimal fraction.

    Raises:
      ValueError: the name does not have this form, or t_m is not 1, 2, 4 or 8.
    """
    match = re.fullmatch(r"rann-(\d+(?:\.\d+)?)x(\d+)-(\d+)", name)
    if not match or float(match[1]) <= 0 or int(match[3]) < 1:
        raise ValueError(
            f"{name!r} does not have the form {FORM}, such as rann-8x4-6:"
            " crop length in seconds, temporal decrease 1, 2, 4 or 8, widening factor"
        )
    t_m = int(match[2])
    temporal_strides(t_m)
    return float(match[1]), t_m, int(match[3])


def crop_seconds(name: str) -> float:
    """Return t_c of a name in seconds.

    Raises:
      ValueError: as `parse_name`.
    """
    return parse_name(name)[0]


def from_name(name: str, **options: Any) -> RANN:
    """Return the network named `rann-{t_c}x{t_m}-{W}`; options are the other attributes of `RANN`.

    Raises:
      ValueError: as `parse_name`, or the options contain the width, which the name gives.
    """
    _, t_m, width = parse_name(name)
    if "width" in options:
        raise ValueError(
            f"width={options['width']}: set the width of a RANN in its name, {name.rsplit('-', 1)[0]}-W"
        )
    return RANN(t_m=t_m, width=width, **options)


def to_name(network: nn.Module, seconds: float) -> str | None:
    """Return the name of a RANN that is used on clips of that length; None for other networks.

    >>> to_name(from_name("rann-8x2-6", num_classes=10), 0.5)
    'rann-0.5x2-6'
    """
    if not isinstance(network, RANN):
        return None
    return f"rann-{np.format_float_positional(seconds, trim='-')}x{network.t_m}-{network.width}"

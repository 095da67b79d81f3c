"""PANNs, the networks that the deck compares with: CNN14, ResNet38 and Wavegram-Logmel-CNN.

Source: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition",
IEEE/ACM TASLP 28, 2020 (arXiv 1912.10211), and its published PyTorch code; layers have the same names as
there. The networks take the image (B, F, T) of the front end `panns_log_mel`; inside, the layout is
(B, T, F, C).
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rann_jax.features.front_ends.base import FrontEnd, Inputs
from rann_jax.features.front_ends.panns import PannsLogMel, PannsLogMelWavegram
from rann_jax.models.convolution import Convolution
from rann_jax.models.convolution.packed import columns_for, packed, pooled, unpacked
from rann_jax.models.dense import precise_dense
from rann_jax.models.norm import BatchNorm
from rann_jax.models.pooling import largest
from rann_jax.models.remat import rematerialised
from rann_jax.models.wavegram import Wavegram

EMBEDDING = 2048
HEAD = "fc_audioset"  # the last layer
BLOCK_DROPOUT, RESIDUAL_DROPOUT, HEAD_DROPOUT = 0.2, 0.1, 0.5
RESNET38_BLOCKS = (3, 4, 6, 3)
LEAST = 2**5  # bins and frames that the five poolings reduce to one

conv_init = nn.initializers.xavier_uniform()


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm and ReLU, then average pooling, in layout (B, T, F, C).

    `columns` says how many columns are packed inside (`convolution.packed`); input and output are not packed.
    """

    channels: int
    pool: tuple[int, int] = (2, 2)
    columns: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Apply the block."""
        x = packed(x, self.columns)
        norm = partial(BatchNorm, slope=0.0, columns=self.columns, dtype=self.dtype)
        for number in (1, 2):
            x = convolution(self.channels, self.columns, self.dtype, name=f"conv{number}")(x)
            x = norm(name=f"bn{number}")(x, train=train)
        return average_pool(x, self.pool, self.columns)


class BasicBlock(nn.Module):
    """Post-activation residual block; with stride 2 it and its shortcut begin with average pooling.

    `columns` says how many columns are packed inside (`convolution.packed`); input and output are not packed.
    """

    channels: int
    stride: int = 1
    columns: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Apply the block."""
        norm = partial(BatchNorm, columns=self.columns, dtype=self.dtype)
        conv = partial(convolution, self.channels, self.columns, self.dtype)
        before = math.gcd(self.columns * self.stride, x.shape[2])
        x = packed(average_pool(packed(x, before), (self.stride, self.stride), before), self.columns)
        y = norm(slope=0.0, name="bn1")(conv(name="conv1")(x), train=train)
        y = nn.Dropout(RESIDUAL_DROPOUT, deterministic=not train)(y)
        y = norm(name="bn2")(conv(name="conv2")(y), train=train)
        if self.stride != 1:
            x = norm(name="downsample_bn")(conv(size=1, name="downsample_conv")(x), train=train)
        return unpacked(nn.relu(x + y), self.columns)


class PANN(nn.Module):
    """Base class of the three networks: a normalised image, a trunk, pooling and two fully connected layers.

    Attributes:
      num_classes: number of logits.
      width: divisor of all channel counts; 1 is the published network (others are ours, for tests).
      dtype: type of the computation; parameters and statistics stay float32.
      remat: store only each block's input for the backward pass, and recompute the rest.
      lanes: channels that a device's matrix units take at once, as in `RANN`.
    """

    num_classes: int
    width: int = 1
    dtype: jax.typing.DTypeLike = jnp.float32
    remat: bool = False
    lanes: int | None = None

    @nn.compact
    def __call__(self, x: Inputs, *, train: bool = False) -> jax.Array:
        """Return logits (B, num_classes), float32; the published networks return their sigmoid.

        Raises:
          ValueError: x is not what the network takes; the message says what it takes.
        """
        return dense(self.num_classes, HEAD)(self.embed(x, train=train))

    @nn.compact
    def embed(self, x: Inputs, *, train: bool = False) -> jax.Array:
        """Return embeddings (B, 2048 / width), float32: the last layer's input, in training after dropout."""
        # Created first although applied last: flax numbers layers in order of creation, and a dropout mask
        # depends on its layer's number. Resumed runs thus continue with the same masks.
        last_dropout = nn.Dropout(HEAD_DROPOUT, deterministic=not train)
        x = self.trunk(x, train=train)
        # From here on at least float32: means over many values, then logits that go into exponentials.
        x = x.astype(np.promote_types(self.dtype, np.float32)).mean(axis=2)
        x = largest(x) + x.mean(axis=1)
        x = nn.Dropout(HEAD_DROPOUT, deterministic=not train)(x)
        return last_dropout(nn.relu(dense(EMBEDDING // self.width, "fc1")(x)))

    def trunk(self, inputs: Inputs, *, train: bool) -> jax.Array:
        """Return the last feature map (B, T', F', C)."""
        raise NotImplementedError

    def block(self, kind: type[nn.Module]) -> type[nn.Module]:
        """Return the block class, rematerialised if the network's `remat` is set."""
        return rematerialised(kind) if self.remat else kind

    def columns(self, channels: int, bins: int) -> int:
        """Return how many columns a block of so many channels packs."""
        return columns_for(channels, bins, self.lanes or 1)

    def normalised(self, image: Inputs, train: bool) -> jax.Array:
        """Return the image (B, F, T) as (B, T, F, 1), normalised per bin."""
        if isinstance(image, Mapping) or image.ndim != 3:
            raise ValueError(
                f"{type(self).__name__} takes feature images (B, F, T), such as those of panns_log_mel"
            )
        if min(image.shape[1:]) < LEAST:
            raise ValueError(
                f"{type(self).__name__} halves bins and frames five times: images need at least {LEAST} "
                f"of each, but these have {image.shape[1]} bins and {image.shape[2]} frames"
            )
        x = BatchNorm(dtype=self.dtype, name="bn0")(jnp.swapaxes(image, 1, 2), train=train)
        return x[..., None]

    def conv_blocks(self, x: jax.Array, first: int, *, train: bool) -> jax.Array:
        """Apply convolutional blocks number `first` to 6 of CNN14, each followed by dropout."""
        for number in range(first, 7):
            x = self.conv_block(x, f"conv_block{number}", 32 * 2**number, train=train, pool=number < 6)
        return x

    def conv_block(self, x: jax.Array, name: str, channels: int, *, train: bool, pool: bool) -> jax.Array:
        """Apply one convolutional block and its dropout."""
        size = (2, 2) if pool else (1, 1)
        channels //= self.width
        columns = self.columns(channels, x.shape[2])
        x = self.block(ConvBlock)(channels, size, columns, dtype=self.dtype, name=name)(x, train)
        return nn.Dropout(BLOCK_DROPOUT, deterministic=not train)(x)


class CNN14(PANN):
    """CNN14: six convolutional blocks of 64 to 2048 channels."""

    def trunk(self, inputs: Inputs, *, train: bool) -> jax.Array:
        """Return the last feature map, (B, T / 32, F / 32, 2048)."""
        return self.conv_blocks(self.normalised(inputs, train), 1, train=train)


class ResNet38(PANN):
    """ResNet38: sixteen residual blocks between two convolutional ones."""

    def trunk(self, inputs: Inputs, *, train: bool) -> jax.Array:
        """Return the last feature map, (B, T / 32, F / 32, 2048)."""
        x = self.conv_block(self.normalised(inputs, train), "conv_block1", 64, train=train, pool=True)
        for stage, blocks in enumerate(RESNET38_BLOCKS):
            for block in range(blocks):
                channels = 64 * 2**stage // self.width
                stride = 2 if stage > 0 and block == 0 else 1
                columns = self.columns(channels, x.shape[2] // stride)
                name = f"layer{stage + 1}_{block}"
                x = self.block(BasicBlock)(channels, stride, columns, dtype=self.dtype, name=name)(x, train)
        x = nn.Dropout(BLOCK_DROPOUT, deterministic=not train)(average_pool(x, (2, 2)))
        return self.conv_block(x, "conv_block_after1", EMBEDDING, train=train, pool=False)


class WavegramLogmelCNN14(PANN):
    """CNN14 with a wavegram joined after its first block; takes {"image": (B, F, T), "waveform": (B, N)}."""

    def trunk(self, inputs: Inputs, *, train: bool) -> jax.Array:
        """Return the last feature map, (B, T / 32, F / 32, 2048)."""
        if not isinstance(inputs, Mapping) or set(inputs) != {"image", "waveform"}:
            raise ValueError(
                "wavegram_logmel_cnn14 takes an image and a waveform: use front end panns_log_mel+wavegram"
            )
        image = self.normalised(inputs["image"], train)
        rows, bins = 128 // self.width, image.shape[2] // 2
        if rows % bins:
            raise ValueError(
                f"wavegram_logmel_cnn14 folds its wavegram to half of the image's bins, {bins}, which must"
                f" divide its {rows} rows: use n_bins=64, and a width of 1, 2 or 4"
            )
        learned = Wavegram(rows, image.shape[1] // 2 * 2, dtype=self.dtype, name="wavegram")
        # The 128 rows fold to 4 channels of 32 bins: the first block leaves as many of the image's 64 bins.
        a = learned(inputs["waveform"], train=train)
        a = jnp.transpose(a.reshape(len(a), -1, bins, a.shape[-1]), (0, 3, 2, 1))
        block = partial(self.block(ConvBlock), 64 // self.width, dtype=self.dtype)
        columns = partial(self.columns, 64 // self.width)
        a = block((2, 1), columns(a.shape[2]), name="pre_block4")(a, train)
        x = block((2, 2), columns(image.shape[2]), name="conv_block1")(image, train)
        x = nn.Dropout(BLOCK_DROPOUT, deterministic=not train)(jnp.concatenate([x, a], axis=-1))
        return self.conv_blocks(x, 2, train=train)


NETWORKS: dict[str, type[PANN]] = {
    "cnn14": CNN14,
    "resnet38": ResNet38,
    "wavegram_logmel_cnn14": WavegramLogmelCNN14,
}


# What they were published with: 10 s at 32 kHz.
PUBLISHED_WITH: dict[str, FrontEnd] = {
    "cnn14": PannsLogMel(),
    "resnet38": PannsLogMel(),
    "wavegram_logmel_cnn14": PannsLogMelWavegram(),
}


def from_name(name: str, **options: Any) -> PANN:
    """Return the network with a name in NETWORKS; options are the attributes of `PANN`."""
    return NETWORKS[name](**options)


def convolution(
    channels: int, columns: int, dtype: jax.typing.DTypeLike, *, name: str, size: int = 3
) -> Convolution:
    """Return a square convolution that keeps the images' size, and the packed columns."""
    margin = (size // 2, size // 2)
    return Convolution(
        channels,
        (size, size),
        padding=(margin, margin),
        columns=(columns, columns),
        kernel_init=conv_init,
        dtype=dtype,
        name=name,
    )


def dense(units: int, name: str) -> nn.Dense:
    """Return a fully connected layer in float32, on every device."""
    return precise_dense(units, kernel_init=conv_init, name=name)


def average_pool(x: jax.Array, size: tuple[int, int], columns: int = 1) -> jax.Array:
    """Average over `size` neighbours; incomplete groups at the ends are dropped, as in torch.

    Images (B, T, F / columns, columns x C) become (B, T / size[0], F / size[1], C), which is not packed.
    """
    if size == (1, 1):
        return unpacked(x, columns)
    if columns > 1:
        return unpacked(pooled(x, size, columns), columns // size[1])
    batch, frames, bins, channels = x.shape
    frames, bins = frames // size[0], bins // size[1]
    x = x[:, : frames * size[0], : bins * size[1]]
    return x.reshape(batch, frames, size[0], bins, size[1], channels).mean(axis=(2, 4))

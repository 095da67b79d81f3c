"""RANN: residual audio neural networks with custom temporal strides.

Source: S. Verbitskiy, slide deck "Residual Audio Neural Networks with Multiple Features for Sound
Classification" (2020), and its later paper "ERANNs" (arXiv 2106.01621). A name `rann-{t_c}x{t_m}-{W}`
holds the crop length t_c in seconds, the temporal decrease t_m in {1, 2, 4, 8} and the widening factor W.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

TEMPORAL_DECREASES = (1, 2, 4, 8)  # t_m = 2^s; the deck's table has no other
BLOCKS_PER_STAGE = 4
BASE_CHANNELS = 8  # stage i has 8 W 2^i channels
LEAKY_SLOPE = 0.01

# The deck does not state an initialisation: He's for the convolutions is ours.
conv_init = nn.initializers.he_normal()

leaky_relu = partial(nn.leaky_relu, negative_slope=LEAKY_SLOPE)


def temporal_strides(t_m: int) -> tuple[int, ...]:
    """Temporal strides of stages 0 to 4: s_i = 4 for 1 <= i <= log2(t_m), else 2; stage 0 keeps the length.

    Raises:
      ValueError: t_m is not 1, 2, 4 or 8.
    """
    if t_m not in TEMPORAL_DECREASES:
        raise ValueError(f"t_m must be one of {TEMPORAL_DECREASES}, not {t_m!r}")
    fours = TEMPORAL_DECREASES.index(t_m)
    return (1, *(4 if i <= fours else 2 for i in (1, 2, 3)), 2)


class ResidualBlock(nn.Module):
    """The deck's ARB: two pre-activated convolutions and a shortcut that takes the raw input.

    Input (B, F, T, C), output (B, ceil(F / x), T / y, channels) for strides (x, y). With a temporal stride
    of 4 the kernels are 6 and 5 long in time, else 3. The shortcut is the identity, or where channels or
    strides change a 1x1 convolution; `shortcut_norm` puts a BatchNorm behind it (the deck's parameter
    counts need it, the paper draws none).
    """

    channels: int
    strides: tuple[int, int] = (1, 1)
    shortcut_norm: bool = True
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Apply the block; `train` normalises by the batch and updates the running statistics."""
        norm = partial(_batch_norm, train=train, dtype=self.dtype)
        conv = partial(nn.Conv, self.channels, use_bias=False, kernel_init=conv_init, dtype=self.dtype)
        long = self.strides[1] == 4
        # Padding is explicit: 'SAME' at stride 2 is not the symmetric padding of the original.
        y = leaky_relu(norm(x, name="norm1"))
        y = conv((3, 6 if long else 3), strides=self.strides, padding=((1, 1), (1, 1)), name="conv1")(y)
        y = leaky_relu(norm(y, name="norm2"))
        time_padding = (2, 2) if long else (1, 1)
        y = conv((3, 5 if long else 3), padding=((1, 1), time_padding), name="conv2")(y)
        if x.shape[-1] != self.channels or self.strides != (1, 1):
            x = conv((1, 1), strides=self.strides, padding="VALID", name="shortcut_conv")(x)
            if self.shortcut_norm:
                x = norm(x, name="shortcut_norm")
        return x + y


class RANN(nn.Module):
    """Residual audio neural network: a feature image (B, F, T) in, logits (B, num_classes) out.

    The network knows no sample rate: F is any number of bins, T any multiple of 4^log2(t_m). Its first
    normalisation is over frequency bins, not channels. Source of the layout: the deck's tables; the global
    pooling (average plus maximum) is the paper's.

    Attributes:
      num_classes: number of logits.
      t_m: temporal decrease, 1, 2, 4 or 8.
      width: widening factor W; stage i has 8 W 2^i channels.
      shortcut_norm: BatchNorm behind each 1x1 shortcut convolution.
      dtype: type of the computation; parameters and statistics stay float32.
    """

    num_classes: int
    t_m: int = 4
    width: int = 1
    shortcut_norm: bool = True
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits (B, num_classes), float32, of feature images x (B, F, T).

        Raises:
          ValueError: x is not (B, F, T), or T does not survive the strides.
        """
        embedding = self.embed(x, train=train)
        return nn.Dense(self.num_classes, name="fc2", dtype=embedding.dtype)(embedding)

    @nn.compact
    def embed(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings (B, 128 W), float32: what the last layer sees."""
        check_frames(x.shape, self.t_m)
        x = _batch_norm(x, name="input_norm", axis=1, train=train, dtype=self.dtype)[..., None]
        for stage, time_stride in enumerate(temporal_strides(self.t_m)):
            channels = BASE_CHANNELS * self.width * 2**stage
            for block in range(BLOCKS_PER_STAGE):
                first = stage > 0 and block == 0
                x = ResidualBlock(
                    channels,
                    strides=(2, time_stride) if first else (1, 1),
                    shortcut_norm=self.shortcut_norm,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{block}",
                )(x, train=train)
        # From here on at least float32: means over many values, then logits that go into exponentials.
        x = x.astype(np.promote_types(self.dtype, np.float32))
        x = x.mean(axis=(1, 2)) + x.max(axis=(1, 2))
        x = nn.Dense(x.shape[-1], name="fc1", dtype=x.dtype)(x)
        return leaky_relu(x)


def check_frames(shape: tuple[int, ...], t_m: int) -> None:
    """Raise ValueError unless feature images of this shape (B, F, T) fit a RANN with this t_m.

    The trunk and the shortcut of a block with temporal stride 4 agree in length only where T is a
    multiple of 4 there, hence of 4^log2(t_m) at the input.
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
    """(t_c in seconds, t_m, W) of a name such as `rann-8x4-6`; t_c may be a decimal fraction.

    Raises:
      ValueError: the name does not have this form, or t_m is not 1, 2, 4 or 8.
    """
    match = re.fullmatch(r"rann-(\d+(?:\.\d+)?)x(\d+)-(\d+)", name)
    if not match or float(match[1]) <= 0 or int(match[3]) < 1:
        raise ValueError(
            f"{name!r} is not rann-{{t_c}}x{{t_m}}-{{W}}, such as rann-8x4-6: crop length in seconds, "
            "temporal decrease 1, 2, 4 or 8, widening factor"
        )
    t_m = int(match[2])
    temporal_strides(t_m)
    return float(match[1]), t_m, int(match[3])


def from_name(name: str, **options) -> RANN:
    """The network that `rann-{t_c}x{t_m}-{W}` names; options are the attributes of `RANN`."""
    _, t_m, width = parse_name(name)
    return RANN(t_m=t_m, width=width, **options)


def _batch_norm(x: jax.Array, *, train: bool, **options) -> jax.Array:
    # flax subtracts float32 statistics from bfloat16 values, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        # flax's momentum 0.9 is torch's 0.1.
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **options)(x)

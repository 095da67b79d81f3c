"""Wavegram: an image learned from the waveform by strided 1-D convolutions.

Source: Kong et al., "PANNs", IEEE/ACM TASLP 28, 2020 (arXiv 1912.10211), and its published code, which is
fixed to 128 channels and one frame per 320 samples. The wavegram is one of the deck's features.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rann_jax.models.norm import BatchNorm
from rann_jax.models.pooling import greatest

POOLING = 4  # factor of each of the three blocks


class Wavegram(nn.Module):
    """Layer that turns a waveform (B, N) into an image (B, bins, frames).

    It is one strided convolution, then three blocks of two convolutions, the second dilated, and a maximum
    over 4. With N = 320 * frames and 128 bins it is the published layer. To give exactly `frames` frames for
    any N (ours), the stride is N / frames / 4^3, rounded, and the first kernel has length 2 * stride + 1. The
    last maximum is adaptive: of the N' positions left after two poolings, each frame covers N' / frames,
    with the beginning rounded down and the end rounded up.

    Attributes:
      bins: rows of the image, and channels of the last block; even.
      frames: columns of the image.
      dtype: type of the computation; parameters and statistics stay float32.
    """

    bins: int = 128
    frames: int = 1000
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, waveform: jax.Array, *, train: bool) -> jax.Array:
        """Return the image (B, bins, frames), which is never negative.

        Raises:
          ValueError: `waveform` is not (B, N) or is too short, or `bins` is not positive and even.
        """
        check_waveform(waveform.shape, self.bins, self.frames)
        half = self.bins // 2
        stride = max(1, round(waveform.shape[-1] / self.frames / POOLING**3))
        conv = functools.partial(
            nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal(), dtype=self.dtype
        )

        def activated(x: jax.Array, name: str) -> jax.Array:
            return BatchNorm(slope=0.0, dtype=self.dtype, name=name)(x, train=train)

        x = waveform[..., None]
        x = conv(half, (2 * stride + 1,), stride, padding=[(stride, stride)], name="conv0")(x)
        x = activated(x, "norm0")
        for block, channels in enumerate((half, self.bins, self.bins), start=1):
            x = conv(channels, (3,), padding=[(1, 1)], name=f"block{block}_conv1")(x)
            x = activated(x, f"block{block}_norm1")
            x = conv(channels, (3,), padding=[(2, 2)], kernel_dilation=2, name=f"block{block}_conv2")(x)
            x = activated(x, f"block{block}_norm2")
            x = adaptive_max_pool(x, self.frames) if block == 3 else max_pool(x)
        return jnp.swapaxes(x, 1, 2)


def max_pool(x: jax.Array) -> jax.Array:
    """Return maxima (B, L / 4, C) over neighbours of x (B, L, C); up to 3 last positions are dropped."""
    end = x.shape[1] // POOLING * POOLING
    # Faster on CPUs than nn.max_pool, whose gradient is XLA's select_and_scatter.
    return greatest(x[:, first:end:POOLING] for first in range(POOLING))


def adaptive_max_pool(x: jax.Array, size: int) -> jax.Array:
    """Return maxima (B, size, C) of x (B, L, C), of windows floor(i L / size) to ceil((i + 1) L / size) - 1.

    These are the windows of torch.nn.AdaptiveMaxPool1d; every position is in at least one.

    >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel()
    Array([2., 4.], dtype=float32)
    """
    length = x.shape[1]
    if length == size * POOLING:
        return max_pool(x)
    begin = np.arange(size) * length // size
    end = -(-(np.arange(size) + 1) * length // size)
    # A window shorter than the longest repeats its last position, which changes no maximum.
    window = np.minimum(begin[:, None] + np.arange((end - begin).max()), end[:, None] - 1)
    return greatest(x[:, positions] for positions in window.T)


def check_waveform(shape: tuple[int, ...], bins: int, frames: int) -> None:
    """Raise ValueError unless a waveform of this shape (B, N) can become an image (B, bins, frames)."""
    if len(shape) != 2:
        raise ValueError(f"a wavegram takes waveforms (B, N), not shape {shape}")
    if bins < 2 or bins % 2:
        raise ValueError(f"a wavegram needs an even number of bins, not {bins}")
    if frames < 1 or shape[-1] < POOLING**2:
        raise ValueError(f"{shape[-1]} samples cannot make a wavegram of {frames} frames")

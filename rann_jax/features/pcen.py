"""Per-channel energy normalisation, equal to librosa's.

Source: Y. Wang et al., "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017;
the filter coefficient: V. Lostanlen et al., IEEE Signal Processing Letters 26(1), 2019.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal


@functools.lru_cache(maxsize=64)
def _decay_matrix(length: int, decay: float, gain: float) -> np.ndarray:
    """Return the lower triangular matrix `gain * decay ** (i - j)`, `(length, length)` float32."""
    lag = np.arange(length)[:, None] - np.arange(length)[None, :]
    powers = np.power(float(decay), np.maximum(lag, 0))
    return (gain * np.where(lag >= 0, powers, 0.0)).astype(np.float32)


def leaky_average(x: jax.Array, b: float, before: jax.Array) -> jax.Array:
    """Compute `M[t] = (1 - b) M[t - 1] + b x[t]` along the last axis; `M[-1]` is `before`, `(..., 1)`.

    The result is exact and needs no loop. The signal is cut into blocks of about sqrt(T) frames; one
    triangular product finds the starting value of each block, a second one runs all blocks from there.
    """
    frames = x.shape[-1]
    block = math.isqrt(frames - 1) + 1
    blocks = -(-frames // block)
    decay = 1 - b
    inside = _decay_matrix(block, decay, b)
    fade = np.power(float(decay), np.arange(1, block + 1)).astype(np.float32)
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, block * blocks - frames)])
    x = x.reshape(*x.shape[:-1], blocks, block)
    ends = product(x, inside[-1])
    first = jnp.broadcast_to(before, (*x.shape[:-2], 1))
    steps = jnp.concatenate([first, ends[..., :-1]], axis=-1)
    starts = product(steps, _decay_matrix(blocks, decay**block, 1.0).T)
    # The starting value is one more input of the product. If it were added to the result instead, XLA would
    # fuse the addition with what follows: measured on CPU, ten times slower.
    x = jnp.concatenate([starts[..., None], x], axis=-1)
    averages = product(x, np.concatenate([fade[:, None], inside], axis=1).T)
    return averages.reshape(*x.shape[:-2], blocks * block)[..., :frames]


def _loudest_neighbour(S: jax.Array, size: int) -> jax.Array:
    """Return the maximum over `size` neighbouring bins (second to last axis)."""
    window = (1,) * (S.ndim - 2) + (size, 1)
    padding = [(0, 0)] * (S.ndim - 2) + [(size // 2, (size - 1) // 2), (0, 0)]
    return jax.lax.reduce_window(S, -np.inf, jax.lax.max, window, (1,) * S.ndim, padding)


@functools.partial(jax.jit, static_argnames=("gain", "bias", "power", "eps", "b", "max_size"))
def _pcen(
    S: jax.Array, *, gain: float, bias: float, power: float, eps: float, b: float, max_size: int
) -> jax.Array:
    reference = S if max_size == 1 else _loudest_neighbour(S, max_size)
    # librosa starts the filter as if all earlier input had been ones.
    smooth = leaky_average(reference, b, jnp.ones((1,) * S.ndim, jnp.float32))
    controlled = S * jnp.exp(-gain * jnp.log(jnp.float32(eps) + smooth))
    if power == 0:
        return jnp.log1p(controlled)
    if bias == 0:
        silent = controlled <= 0
        return jnp.where(silent, 0, jnp.power(jnp.where(silent, 1, controlled), power))
    return jnp.float32(bias**power) * jnp.expm1(power * jnp.log1p(controlled / bias))


def pcen(
    S: ArrayLike,
    *,
    sr: float = 22050,
    hop_length: int = 512,
    gain: float = 0.98,
    bias: float = 2.0,
    power: float = 0.5,
    time_constant: float = 0.4,
    eps: float = 1e-6,
    b: float | None = None,
    max_size: int = 1,
) -> jax.Array:
    """Per-channel energy normalisation, equal to `librosa.pcen`.

    It is `(S / (eps + M)**gain + bias)**power - bias**power`, where `M[t] = (1 - b) M[t - 1] + b S[t]`.
    The defaults suit samples from -2**31 to 2**31: scale a waveform in -1..1 first.

    Args:
      S: magnitude or mel spectrogram `(..., F, T)`, floating, not negative.
      sr: sample rate of the sound in Hz.
      hop_length: samples between frames.
      gain: exponent of the automatic gain control; at least 0.
      bias: bias of the compression; at least 0.
      power: exponent of the compression; at least 0, where 0 means a logarithm.
      time_constant: time constant of the filter, in seconds.
      eps: keeps silence finite; a positive float32, at least 1.2e-38.
      b: filter coefficient in 0..1; default from `time_constant`.
      max_size: number of neighbouring bins over which the maximum of S is taken before it is smoothed to M.

    Returns:
      float32 `(..., F, T)`.

    Raises:
      ValueError: empty or integer `S`; an argument outside its range.

    >>> loud_after_quiet = np.float32([[1e3, 1e3, 1e5, 1e5]])
    >>> [f"{level:.2f}" for level in pcen(loud_after_quiet, b=0.5)[0].tolist()]
    ['0.65', '0.46', '0.70', '0.50']
    """
    signal.check_positive(hop_length=hop_length, max_size=max_size)
    gain, bias, power = (
        signal.number(*argument) for argument in (("gain", gain), ("bias", bias), ("power", power))
    )
    time_constant, sr = signal.number("time_constant", time_constant), signal.number("sr", sr)
    eps = signal.number("eps", eps)
    for name, value in (("gain", gain), ("bias", bias), ("power", power)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}={value} must not be negative or infinite")
    if not signal.is_float32(eps):
        raise ValueError(f"eps={eps} must be at least 1.2e-38, the smallest normal float32")
    for name, value in (("time_constant", time_constant), ("sr", sr)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive and finite")
    if b is None:
        frames = time_constant * sr / hop_length
        # librosa's (sqrt(1 + 4 frames**2) - 1) / (2 frames**2), rewritten without overflow and cancellation.
        b = 2 / (1 + math.hypot(1, 2 * frames))
    b = signal.number("b", b)
    if not 0 < b <= 1:
        raise ValueError(f"b={b} must be above 0 and at most 1")
    S = signal.as_waveform(S, "S")
    if S.ndim < 2 and max_size > 1:
        raise ValueError(f"max_size={max_size} pools over bins: S must have shape (..., F, T)")
    return _pcen(
        S,
        gain=gain,
        bias=bias,
        power=power,
        eps=eps,
        b=b,
        max_size=int(max_size),
    )

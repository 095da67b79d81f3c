"""Resampling with the polyphase filter of `scipy.signal.resample_poly`, as products with small matrices."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from rann_jax.features import signal

# Outputs computed by one matrix in the polyphase method: enough to keep the matrix units busy, but few enough
# for small matrices.
GROUP = 64


@functools.lru_cache(maxsize=32)
def _polyphase_plan(up: int, down: int) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Plan one block; return its periods, its margin, first samples `(G,)` and weights `(G, W, M)`.

    The filter is that of `scipy.signal.resample_poly`: a Kaiser window of beta 5 with ten zero
    crossings of the lower rate on either side. The outputs of group `g` are the product of `weights[g]` with
    the `W` samples from `first[g]` on, counted from the beginning of the block's margin.
    """
    rate = max(up, down)
    half = 10 * rate
    taps = scipy.signal.firwin(2 * half + 1, 1 / rate, window=("kaiser", 5.0)) * up
    periods = math.ceil(GROUP / up)
    groups = math.ceil(periods * up / GROUP)
    outputs = math.ceil(periods * up / groups)
    margin = half // up + 1
    instants = np.arange(groups * outputs).reshape(groups, outputs) * down
    first = instants[:, 0] // up - margin
    width = (outputs - 1) * down // up + 2 * margin + 2
    samples = first[:, None] + np.arange(width)
    index = instants[:, None, :] - samples[:, :, None] * up + half
    weights = np.where((index >= 0) & (index <= 2 * half), taps[np.clip(index, 0, 2 * half)], 0.0)
    return periods, margin, (first + margin).astype(np.int32), weights.astype(np.float32)


def polyphase_resample(y: jax.Array, up: int, down: int) -> jax.Array:
    """Resample `(..., N)` by `up / down` in lowest terms to `(..., ceil(N up / down))`."""
    n = y.shape[-1]
    periods, margin, first, weights = _polyphase_plan(up, down)
    step = periods * down
    count = math.ceil(n / step)
    width = int(first[-1]) + weights.shape[1]
    right = (count - 1) * step + width - margin - n
    y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(margin, max(0, right))])
    blocks = signal.frame(y, width, step)

    def samples_of_group(start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(blocks, start, weights.shape[1], axis=-1)

    groups = jax.vmap(samples_of_group)(jnp.asarray(first)).reshape(len(first), -1, weights.shape[1])
    out = jnp.matmul(groups, jnp.asarray(weights), precision=jax.lax.Precision.HIGHEST)
    out = jnp.moveaxis(out, 0, 1).reshape(*blocks.shape[:-1], -1)[..., : periods * up]
    return out.reshape(*out.shape[:-2], -1)[..., : -(-n * up // down)]

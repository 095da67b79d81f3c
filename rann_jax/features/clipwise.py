"""Working through a batch in the way that suits the device.

An accelerator wants the whole batch in every operation. On a CPU the intermediate arrays of a whole
batch leave the cache, and the memory they are written to is new each time; one clip after another,
each operation still spread over the cores, took half the time or less (measured on mel spectrograms
of 16 clips of 8 seconds at 44.1 kHz).
"""

from collections.abc import Callable

import jax


def clipwise(feature: Callable[[jax.Array], jax.Array], y: jax.Array) -> jax.Array:
    """Return `feature(y)` for `y` `(..., N)`; on a CPU, clip by clip.

    `feature` maps `(B, N)` to `(B, ...)`, each clip by itself.
    """
    clips = y.reshape(-1, y.shape[-1])

    def one_by_one(clips: jax.Array) -> jax.Array:
        return jax.lax.map(lambda clip: feature(clip[None])[0], clips)

    if len(clips) == 1:
        out = feature(clips)
    else:
        out = jax.lax.platform_dependent(clips, cpu=one_by_one, default=feature)
    return out.reshape(*y.shape[:-1], *out.shape[1:])

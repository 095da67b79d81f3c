"""The fully connected layers of a network's head."""

import functools

import jax
from flax import linen as nn

# A layer that computes in its own type on every device. By default XLA multiplies float32 matrices with fewer
# bits on accelerators: in TF32 on NVIDIA's newer GPUs, in one bfloat16 pass on TPUs. The logits go into
# exponentials, and these products are a negligible part of a network.
precise_dense = functools.partial(nn.Dense, precision=jax.lax.Precision.HIGHEST)

"""A checksum of a state's arrays, which reveals damaged checkpoints."""

from typing import Any

import jax
import numpy as np

from rann_jax import distributed


def checksum(state: Any) -> int:
    """Return a number below 2^32 that changes if any one bit of any array does.

    It is the sum modulo 2^32 of all 32-bit words, each times an odd number specific to its array. So neither
    the order of the words nor the placement of the arrays matters. It is computed on the host, because a
    program for all these arrays would take long to compile. Processes that share arrays all return the same.

    Raises:
      ValueError: the size of an array is not a multiple of 32 bits.
    """
    number = own_sum(state)
    return distributed.total(number) % 2**32 if is_shared(state) else number


def own_sum(state: Any) -> int:
    """Return this process's contribution to the checksum; parts held by several devices count once."""
    total = 0
    for index, leaf in enumerate(jax.tree.leaves(state)):
        parts = [shard.data for shard in leaf.addressable_shards if shard.replica_id == 0]
        for part in jax.device_get(parts):
            total += (2 * index + 1) * int(np.ravel(part).view(np.uint32).sum(dtype=np.uint32))
    return total % 2**32


def is_shared(state: Any) -> bool:
    """Return whether the arrays span several processes, rather than each process holding its own."""
    placed = (leaf.sharding for leaf in jax.tree.leaves(state))
    return not all(sharding is None or sharding.is_fully_addressable for sharding in placed)

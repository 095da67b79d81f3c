"""Joined splits, and the class-balanced and weighted orders in which training reads clips.

An order depends only on the seed and the number of the draw, so it is the same for any number of
processes and after any restart.
"""

import functools
from collections.abc import Sequence

import numpy as np

from input_pipeline.errors import DataError

_WEIGHT_OFFSET = 100  # as in PaSST
_BLOCK_DRAWS = 4096  # made at once: creating a generator for each draw would cost more than the draw


def split_names(expression: str, known: Sequence[str], *, key: str = "") -> tuple[str, ...]:
    """Return the splits that an expression such as 'fold2+fold3' joins, in its order.

    Args:
      expression: names of splits, joined by +.
      known: the names that exist.
      key: the key of a config that gave the expression, for messages.

    Raises:
      DataError: a name is unknown, repeated or empty.
    """
    names = tuple(part.strip() for part in expression.split("+"))
    where = f"{key}: " if key else ""
    for name in names:
        if name not in known:
            raise DataError(f"{where}unknown split {name!r}: the splits are {', '.join(known)}")
        if names.count(name) > 1:
            raise DataError(f"{where}{expression!r} names {name!r} twice: name each split once")
    return names


class BalancedOrder:
    """Endless class-balanced order that maps a draw's number to a clip, without computing earlier draws.

    This is the scheme of PANNs (Kong et al., 2020, arXiv 1912.10211). Each round visits all classes in a new
    random order and takes the next clip of each class. When all clips of a class have been taken, they are
    shuffled again. A clip with several classes is drawn for each of them. Classes without clips are left out.

    Args:
      clips_by_class: for each class, the indices of the clips that have it.
      seed: seed of the orders.

    Raises:
      DataError: no clip has a label.

    >>> order = BalancedOrder([np.array([0, 1, 2]), np.array([3])], seed=0)
    >>> sum(order(draw) == 3 for draw in range(600))
    300
    """

    def __init__(self, clips_by_class: Sequence[np.ndarray], seed: int):
        self._clips = [clips for clips in clips_by_class if len(clips)]
        if not self._clips:
            raise DataError("config.sampling='balanced' needs labels, but no clip has one")
        self._seed = seed
        # Threads read ahead of one another, so orders of neighbouring rounds and epochs are kept together.
        self._round = functools.lru_cache(maxsize=4)(functools.partial(self._permutation, -1))
        self._shuffled = functools.lru_cache(maxsize=2 * len(self._clips))(self._permutation)

    def __call__(self, draw: int) -> int:
        """Return the clip of a draw, counted from 0."""
        turn, position = divmod(draw, len(self._clips))
        chosen = int(self._round(turn)[position])
        clips = self._clips[chosen]
        epoch, place = divmod(turn, len(clips))
        return int(clips[self._shuffled(chosen, epoch)[place]])

    def _permutation(self, chosen: int, epoch: int) -> np.ndarray:
        """Return the order of a class's clips in an epoch; if `chosen` is -1, of the classes in a round."""
        size = len(self._clips) if chosen < 0 else len(self._clips[chosen])
        return np.random.default_rng([self._seed, chosen + 1, epoch]).permutation(size)


class WeightedOrder:
    """Endless draws with replacement that favour clips of rare classes; maps a draw's number to a clip.

    The weights are those of PaSST (Koutini et al., 2022, arXiv 2110.05069; audioset/dataset.py there): the
    probability of a clip is proportional to the sum, over its classes, of 1 / (100 + number of clips that
    have the class). A clip without labels is never drawn. PaSST draws an epoch of 100,000 without
    replacement; here (ours) draws are independent, so each can be computed without the others.

    Args:
      clips_by_class: for each class, the indices of the clips that have it, in increasing order.
      seed: seed of the draws.

    Raises:
      DataError: no clip has a label.

    >>> order = WeightedOrder([np.array([0, 1]), np.array([1])], seed=0)
    >>> round(float(order.probabilities[1] / order.probabilities[0]), 6)  # (1/102 + 1/101) / (1/102)
    2.009901
    """

    def __init__(self, clips_by_class: Sequence[np.ndarray], seed: int):
        weights = np.zeros(max((int(clips[-1]) + 1 for clips in clips_by_class if len(clips)), default=0))
        for clips in clips_by_class:
            weights[clips] += 1 / (_WEIGHT_OFFSET + len(clips))
        if not len(weights):
            raise DataError("config.sampling='weighted' needs labels, but no clip has one")
        self.probabilities = weights / weights.sum()
        self._seed = seed
        self._cumulative = np.cumsum(self.probabilities)
        self._cumulative /= self._cumulative[-1]
        self._block = functools.lru_cache(maxsize=2)(self._draws)

    def __call__(self, draw: int) -> int:
        """Return the clip of a draw, counted from 0."""
        block, place = divmod(draw, _BLOCK_DRAWS)
        return int(self._block(block)[place])

    def _draws(self, block: int) -> np.ndarray:
        uniform = np.random.default_rng([self._seed, block]).random(_BLOCK_DRAWS)
        return np.searchsorted(self._cumulative, uniform, side="right")


ORDERS: dict[str, type[BalancedOrder] | type[WeightedOrder]] = {
    "balanced": BalancedOrder,
    "weighted": WeightedOrder,
}
SAMPLINGS = ("uniform", *ORDERS)  # the values of config.sampling

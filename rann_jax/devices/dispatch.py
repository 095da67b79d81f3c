"""Fetch results from JAX's asynchronous computations without leaving the device idle."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def one_behind(dispatched: Iterable[Item]) -> Iterator[Item]:
    """Yield the items in order, each one only after the next one has been drawn.

    If drawing an item dispatches its computation, the device computes it while the host waits for the
    previous item, fetches it and prepares the next. At most two items are held.
    """
    for item, _ in itertools.pairwise(itertools.chain(dispatched, [None])):
        yield item  # type: ignore[misc]

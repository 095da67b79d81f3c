"""JAX computes behind the host's back: how results are fetched without leaving the device idle."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def one_behind(dispatched: Iterable[Item]) -> Iterator[Item]:
    """The items in their order, each given when the next one was drawn.

    Where drawing an item dispatches its computation, the device has that to compute while the host waits for
    the item before, fetches it and prepares the next. Two are kept at most.
    """
    for item, _ in itertools.pairwise(itertools.chain(dispatched, [None])):
        yield item  # type: ignore[misc]

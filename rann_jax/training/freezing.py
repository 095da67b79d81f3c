"""Frozen parameters, `config.optimizer.frozen`, which are not trained, and how their layers behave.

A BatchNorm whose scale and bias are both frozen uses its running statistics in training too, and does not
update them. Otherwise a frozen layer's output would drift with the batches, away from what the following
weights expect. If the whole trunk is frozen, it runs without dropout, as in `Tagger.embed`, so the last layer
is a linear probe of the embeddings. Both rules are (ours).
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from rann_jax.models.norm import BatchNorm

TRUNK = "trunk"

# Where a parameter is, such as ("fc1", "kernel").
ParamPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Freezing:
    """Which parameters of a network are frozen.

    Attributes:
      head: name of the network's last layer.
      patterns: globs of parameters, such as "conv_block1/*", or of layers, such as "conv_block[1-3]". The
        word "trunk" means everything but the head.

    >>> Freezing("fc2", ("stage0*",)).covers(("stage0_block1", "conv1", "kernel"))
    True
    """

    head: str
    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(pattern, str) for pattern in self.patterns):
            raise ValueError(f"frozen={self.patterns}: patterns must be text, such as 'conv_block1'")

    def covers(self, path: ParamPath) -> bool:
        """Return whether the parameter at this path is frozen."""
        return any(self._matches(pattern, path) for pattern in self.patterns)

    def check(self, params: Any) -> None:
        """Raise ValueError if a pattern matches nothing, or nothing is left to train."""
        paths = list(flatten_dict(params))
        layers = ", ".join(dict.fromkeys(path[0] for path in paths))
        for pattern in self.patterns:
            if not any(self._matches(pattern, path) for path in paths):
                raise ValueError(f"frozen={pattern!r} matches no parameter; layers are {layers}")
        if all(map(self.covers, paths)):
            raise ValueError("frozen: every parameter is frozen, nothing is left to train: freeze fewer")

    def groups(self, params: Any) -> Any:
        """Return a tree like params that labels each "frozen", "head" or "trunk", for `optimizer.adam`."""
        return unflatten_dict({path: self._group(path) for path in flatten_dict(params)})

    def count(self, params: Any) -> int:
        """Return the number of frozen scalar values."""
        return sum(leaf.size for path, leaf in flatten_dict(params).items() if self.covers(path))

    @contextmanager
    def inference_where_frozen(self, params: Any) -> Iterator[None]:
        """Within this context, a network applied with train=True runs frozen layers in inference mode."""
        if not self.patterns:
            yield
            return
        with nn.intercept_methods(self._interceptor(list(flatten_dict(params)))):
            yield

    def _interceptor(self, paths: Iterable[ParamPath]) -> Callable[..., jax.Array]:
        whole_trunk = all(self.covers(path) for path in paths if path[0] != self.head)

        def infers(context: Any) -> bool:
            if context.method_name == "embed":
                return whole_trunk
            return isinstance(context.module, BatchNorm) and self._covers_norm(context.module.path)

        def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> jax.Array:
            return call(*args, **(kwargs | {"train": False} if infers(context) else kwargs))

        return intercept

    def _covers_norm(self, path: ParamPath) -> bool:
        return all(self.covers((*path, name)) for name in ("scale", "bias"))

    def _group(self, path: ParamPath) -> str:
        if self.covers(path):
            return "frozen"
        return "head" if path[0] == self.head else "trunk"

    def _matches(self, pattern: str, path: ParamPath) -> bool:
        if pattern == TRUNK:
            return path[0] != self.head
        name = "/".join(path)
        return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}/*")

"""RANN in JAX: sound classification with residual networks on several audio features."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rann_jax import augment as augment
    from rann_jax import comparison as comparison
    from rann_jax import features as features
    from rann_jax import fusion as fusion
    from rann_jax import hear as hear
    from rann_jax import interop as interop
    from rann_jax import metrics as metrics
    from rann_jax import models as models
    from rann_jax.tagger import Tagger as Tagger
    from rann_jax.tagging.tagger_ensemble import TaggerEnsemble as TaggerEnsemble
    from rann_jax.tagging.timeline import events_in as events_in

__version__ = "0.1.0"

# Loaded on first use, to keep `import rann_jax` light: JAX and the networks take seconds.
_NAMES = {
    "Tagger": "rann_jax.tagger",
    "TaggerEnsemble": "rann_jax.tagging.tagger_ensemble",
    "events_in": "rann_jax.tagging.timeline",
}
_MODULES = ("augment", "comparison", "features", "fusion", "hear", "interop", "metrics", "models")


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"rann_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})

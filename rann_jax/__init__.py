"""RANN in JAX: sound classification with residual networks on several audio features."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rann_jax.tagger import Tagger as Tagger
    from rann_jax.tagger_ensemble import TaggerEnsemble as TaggerEnsemble

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Keep `import rann_jax` light: JAX and the networks are loaded on first use of these names.
    if name == "Tagger":
        from rann_jax.tagger import Tagger

        return Tagger
    if name == "TaggerEnsemble":
        from rann_jax.tagger_ensemble import TaggerEnsemble

        return TaggerEnsemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "Tagger", "TaggerEnsemble"})

"""RANN in JAX: sound classification with residual networks on several audio features."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import rann_jax` stays light: JAX and the networks are loaded with the first use of these.
    if name == "Tagger":
        from rann_jax.tagger import Tagger

        return Tagger
    if name == "TaggerEnsemble":
        from rann_jax.tagger_ensemble import TaggerEnsemble

        return TaggerEnsemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

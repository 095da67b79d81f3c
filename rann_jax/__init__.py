"""RANN in JAX: sound classification with residual networks on several audio features."""

__version__ = "0.1.0"

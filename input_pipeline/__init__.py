"""Everything on the host before the device: sound files to batches. Imports nothing of rann_jax."""

from input_pipeline.errors import DataError
from input_pipeline.loader import eval_batches, train_batches
from input_pipeline.prepare import prepare, survey
from input_pipeline.prepared import Prepared

__all__ = ["DataError", "Prepared", "eval_batches", "prepare", "survey", "train_batches"]

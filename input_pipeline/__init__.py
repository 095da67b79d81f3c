"""Everything on the host before the device, from sound files to batches. It does not import rann_jax."""

from input_pipeline.errors import DataError
from input_pipeline.loader import eval_batches, train_batches
from input_pipeline.prepare import prepare
from input_pipeline.prepared import Prepared
from input_pipeline.survey import survey

__all__ = ["DataError", "Prepared", "eval_batches", "prepare", "survey", "train_batches"]

"""Everything on the host before the device: sound files to batches. Imports nothing of rann_jax."""

"""What is in the workdir of a run but its checkpoints (rann_jax/checkpoint.py), and trained models of it."""

"""What a run saves in its workdir, except checkpoints, which are in rann_jax/checkpoint.py."""

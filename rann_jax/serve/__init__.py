"""A web page and a JSON endpoint to try a trained model: see `python -m rann_jax.serve --help`."""

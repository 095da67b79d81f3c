"""One experiment a file: `get_config(arg)`; the docstring carries the command and the result seen."""

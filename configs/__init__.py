"""One experiment per file, with `get_config(arg)`; its docstring gives the command and the result seen."""

"""Measurements of speed and accuracy; each module is a program, `python -m benchmarks.NAME`."""

"""Tagging of sound of any length: its windows, their probabilities over time, events, ensembles, outputs."""

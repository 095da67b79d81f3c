"""Tagging of sound of any length: windows of it, class probabilities over time, events, and their output."""

"""The front ends: each is a dataclass on one of the base classes in `base` and `waveform`."""

"""The front ends, one file for each kind; all are dataclasses on the base class in `base`."""

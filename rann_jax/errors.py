"""Errors that a user can cause and mend."""


class ConfigError(Exception):
    """A config, workdir or option that cannot be used: one line that names the key and the mend."""


class DivergedError(Exception):
    """A loss, a state or probabilities are not finite; the message says at which step, and the mend."""

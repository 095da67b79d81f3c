"""Errors that a user can cause and fix."""


class ConfigError(Exception):
    """A config, workdir or option cannot be used; the message names the key and the fix in one line."""


class DivergedError(Exception):
    """A loss, a state or probabilities are not finite; the message gives the step and the fix."""

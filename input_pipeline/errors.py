"""The one error of this package that a user can cause and fix."""


class DataError(Exception):
    """Data that cannot be used as given; the message is one line that names the key or file and the fix."""

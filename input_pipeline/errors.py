"""The one error of this package that a user can cause and mend."""


class DataError(Exception):
    """Sound data that cannot be used as given: one line that names the key or file and the mend."""

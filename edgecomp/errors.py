"""Errors that callers may want to tell apart."""


class FormatError(ValueError):
    """A file is not what it has to be. The message names the file, the tensor and the rule."""

"""The one exception that means "the input is wrong": command lines print it as a single line."""


class InputError(ValueError):
    """A parameter, a file or a table that the study cannot use; the message says what to change."""

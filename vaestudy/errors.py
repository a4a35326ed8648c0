"""The one exception that means "the input is wrong": command lines and notebooks show it as a single line."""


class InputError(ValueError):
    """A parameter, a file or a table that the study cannot use; the message says what to change."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"InputError: {self}"]


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line that an InputError can quote."""
    return (str(error).splitlines() or [type(error).__name__])[0]

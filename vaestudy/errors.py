"""What command lines and notebooks show as a single line: the input is wrong, or a notebook failed."""


class InputError(ValueError):
    """A parameter, a file or a table that the study cannot use; the message says what to change."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"InputError: {self}"]


class NotebookError(RuntimeError):
    """A notebook that stopped in one of its cells; the message says in which, and where to look."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line that an InputError can quote."""
    return (str(error).splitlines() or [type(error).__name__])[0]

"""What command lines and notebooks show as a single line: the input is wrong, or a notebook failed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


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


@contextmanager
def reading(failure: str, advice: str) -> Iterator[None]:
    """Makes whatever another library raises of a file that is missing or damaged into an InputError with advice."""
    try:
        yield
    except (InputError, MemoryError):  # says already what to do; is no fault of the file
        raise
    except Exception as error:
        raise InputError(f"{failure} ({first_line(error)}): {advice}") from error


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raise InputError for a value that is none of those known."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, not {value!r}")


def check_choices(owner: object, **choices: Collection[str]) -> None:
    """Raise InputError for a field of `owner` that is none of its choices."""
    for name, known in choices.items():
        check_choice(name, getattr(owner, name), known)


def check_bounds(owner: object, **intervals: str) -> None:
    """Raise InputError for a field of `owner` outside of its interval, written as "[0, 1)"."""
    for name, interval in intervals.items():
        value, (low, high) = getattr(owner, name), map(float, interval[1:-1].split(","))
        at_an_end = (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")
        if not (low < value < high or at_an_end):
            raise InputError(f"{name} must be within {interval}, not {value}")

"""How a program ends before its end: SIGTERM and Ctrl-C as requests, and one line for whatever went wrong."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vaestudy.errors import InputError, NotebookError

GOES_ON = "stopped: the same command goes on where it was"
# What a disk says that is full, has a quota, or has turned read-only.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


class Terminated(SystemExit):
    """SIGTERM has stopped what ran; the process ends with status 143."""

    code = 128 + signal.SIGTERM


@contextmanager
def stop_requests(tell: Callable[[], Any] = lambda: None) -> Iterator[list[type[BaseException]]]:
    """A list that SIGTERM and Ctrl-C fill with what to raise once it suits, and `tell`; a second one acts at once."""
    requested: list[type[BaseException]] = []

    def note(number: int, _frame: Any) -> None:
        if requested:
            raise requested[0]("stopped at once")
        requested.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        tell()

    with _handled(note, signal.SIGTERM, signal.SIGINT):
        yield requested


@contextmanager
def _handled(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[None]:
    """Have signals handled so inside the block; in other threads than the main one nothing can be."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if here}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def status(run: Callable[[], int]) -> int:
    """The exit status of a program: that of `run`, or after one line on stderr 2 for bad input and a disk without
    room, 1 for a failed notebook, 130 for Ctrl-C and 143 for SIGTERM; 141, without a word, where nobody reads on."""

    def terminate(_number: int, _frame: Any) -> None:
        raise Terminated

    try:
        with _handled(terminate, signal.SIGTERM):
            try:
                return run()
            finally:
                sys.stdout.flush()  # a closed pipe says so here, not when Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return 141
    except (KeyboardInterrupt, Terminated) as stop:
        found, words = getattr(stop, "code", 128 + signal.SIGINT), str(stop) or GOES_ON
    except (InputError, NotebookError) as error:
        found, words = 2 if isinstance(error, InputError) else 1, str(error)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        found, words = 2, f"cannot write {error.filename or 'a file'}: {error.strerror}"
    print(f"vaestudy: {words}", file=sys.stderr)  # noqa: T201
    return found

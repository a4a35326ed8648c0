"""Work side by side on the cores of a CPU, which stops as one."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread
from typing import Any

import torch
from joblib import Parallel, delayed

from vaestudy.stopping import Terminated, stop_requests
from vaestudy.training import memory

_WORK = Lock()  # held while a process works
_STOP: list[Path] = []  # the file that stops it, of the latest work


def side_by_side(function: Callable[..., Any], arguments: Iterable[tuple]) -> list:
    """`function` of each arguments, each on one thread of a process; with one core or CUDA one after another.

    A step of a small convolutional network took two cores 49 ms together and one alone 62, so that two trainings end
    long before two that take turns. SIGTERM and Ctrl-C are passed on, and trainings leave their states.
    """
    arguments = list(arguments)
    cores = 1 if torch.cuda.is_available() else min(len(arguments), memory.usable_cores())
    if cores < 2:
        return [function(*each) for each in arguments]
    with TemporaryDirectory() as shared, stop_requests(Path(shared, "stop").touch) as requested:
        try:
            tasks = (delayed(_alone)(function, each, os.getpid(), Path(shared, "stop")) for each in arguments)
            return Parallel(cores, backend="loky")(tasks)
        finally:
            if requested:
                raise requested[0](f"stopped {len(arguments)} models: the same command goes on there")


def _alone(function: Callable[..., Any], arguments: tuple, parent: int, stop: Path) -> Any:
    """The same in a process of its own."""
    torch.set_num_threads(1)
    _STOP[:] = [stop]
    _watch(parent)
    with _WORK, suppress(Terminated, KeyboardInterrupt):
        if not stop.exists() and os.getppid() == parent:
            return function(*arguments)
    return None


@cache
def _watch(parent: int) -> None:
    """SIGTERM, once, to the work of this process where it is to stop or `parent` is gone, without which it leaves:
    joblib's processes would outlive a parent that was killed by minutes."""

    def watch() -> None:
        signalled = None
        while (there := os.getppid() == parent) or _WORK.locked():
            stop = _STOP[0]
            if _WORK.locked() and signalled != stop and (stop.exists() or not there):
                os.kill(os.getpid(), signal.SIGTERM)
                signalled = stop
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()

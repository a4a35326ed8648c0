"""Work side by side on the cores of a CPU, which stops as one."""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import torch
from joblib import Parallel, delayed

from vaestudy.stopping import Terminated, stop_requests
from vaestudy.training import memory


def side_by_side(function: Callable[..., Any], arguments: Iterable[tuple]) -> list:
    """`function` of each arguments, each on one thread of a process; with one core or CUDA one after another.

    Measured on a small convolutional network, two cores took 49 ms a step together and 62 alone, so two trainings on a
    core each end long before two that take turns. SIGTERM and Ctrl-C are passed on, and trainings leave their states.
    """
    arguments = list(arguments)
    cores = 1 if torch.cuda.is_available() else min(len(arguments), memory.usable_cores())
    if cores < 2:
        return [function(*each) for each in arguments]
    with TemporaryDirectory() as shared:
        stop = Path(shared) / "stop"
        with stop_requests(stop.touch) as requested:
            try:
                tasks = (delayed(_alone)(function, each, os.getpid(), stop) for each in arguments)
                return Parallel(cores, backend="loky")(tasks)
            finally:
                if requested:
                    raise requested[0](f"stopped {len(arguments)} models: the same command goes on there")


def _alone(function: Callable[..., Any], arguments: tuple, parent: int, stop: Path) -> Any:
    """The same in a process that gets SIGTERM once the file `stop` is there or the process `parent` is not."""
    ended = Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if stop.exists() or os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    torch.set_num_threads(1)
    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        with suppress(Terminated, KeyboardInterrupt):
            return function(*arguments)
    finally:
        ended.set()
        thread.join()

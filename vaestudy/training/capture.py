"""Work of fixed shapes as one CUDA graph: thousands of kernels for the price of one launch."""

import logging
from collections.abc import Callable

import torch

from vaestudy.errors import first_line

logger = logging.getLogger(__name__)
WARM_UP = 3  # calls before the recording, in which libraries and compilers settle


class Captured:
    """A function that is recorded, where that is allowed, at its fourth call, and replayed from then on.

    The first calls are ordinary ones, so that nothing is computed twice. A recording holds addresses: what the function
    reads and writes must keep its place once `fixed` is True, and no number of Python's may decide anything in it.
    Random numbers come from the device's global generator, whose seed and offset each replay takes anew: seed it before
    a call, never inside. Where the recording is refused, the calls stay ordinary ones, which one line of the log says.
    """

    def __init__(self, work: Callable[[], None], allowed: bool):
        self.work, self.allowed, self.calls, self.replay = work, allowed, 0, None

    @property
    def fixed(self) -> bool:
        """Whether the next call records or replays."""
        return self.allowed and self.calls >= WARM_UP

    def __call__(self) -> None:
        if self.fixed and self.replay is None:
            try:
                self.replay = cuda_graph(self.work)
            except RuntimeError as error:
                logger.warning("no CUDA graph, each operation is launched by itself: %s", first_line(error))
                self.allowed = False
        if self.replay is not None:
            self.replay()
        elif self.allowed and torch.cuda.is_available():
            # What is recorded next has to have run on a stream of its own.
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.work()
            torch.cuda.current_stream().wait_stream(side)
        else:
            self.work()
        self.calls += 1


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record `work`, which is not executed, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay

"""Many processes as one trainer: `torchrun` starts them, and each learns here which part of the work is its own."""

import atexit
import gc
import importlib
import os

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def start() -> None:
    """Join the processes that `torchrun` has started, each on a device of its own; alone, do nothing."""
    if "RANK" not in os.environ or distributed.is_initialized():
        return
    # Imported once there is a group, its functions keep that as a default, and with it threads that abort a process
    # whose Python ends before them.
    importlib.import_module("torch.distributed.nn")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, count = next(distributed.rendezvous("env://"))
    # After a restart the store still holds the addresses of the processes that died.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(f"attempt_{attempt}", store)
    distributed.init_process_group(backend, store=store, rank=number, world_size=count)
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
    gc.collect()  # a DistributedDataParallel is part of a cycle, and keeps the group


def rank() -> int:
    """This process's number, 0 for the one that writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes work together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier() -> None:
    """Wait until every process is here."""
    if distributed.is_initialized():
        distributed.barrier()


def anywhere(flag: bool) -> bool:
    """Whether it is so in any process; hosts alone talk, so that no device is waited for."""
    return bool(mean(torch.tensor(float(flag))))


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if distributed.is_initialized():
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
    return value


def gather(value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A tensor of every process along a new first axis; gradients find their way back to where each came from."""
    return _Gather.apply(value) if world() > 1 else value[None]


class _Gather(torch.autograd.Function):
    # torch's own differentiable all_gather is deprecated, and its successor wants compiled code.
    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        parts = [torch.empty_like(value) for _ in range(world())]
        distributed.all_gather(parts, value.contiguous())
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        # Every process has used this one's part, so all of their gradients belong to it.
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad[rank()]

"""Gradient skipping: a step whose gradient is one to leave out changes nothing, without a word to the host."""

from collections.abc import Sequence
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LARGEST = 1 << 26  # elements that are chosen between at once: few beside a large model


class GradientSkips(nn.Module):
    """Leaves a step out whose gradient norm is not finite, or more than `factor` times its running mean.

    Fused optimisers leave weights and moments alone by themselves; what else a step changes is put back by `put_back`.
    The norm takes 0.4 to 1.8 % of a step of the laptop profile's networks.
    """

    def __init__(self, factor: float, device: torch.device):
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.zeros((), device=device))  # 0 until there is one
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64, device=device))  # in all, and in a row

    @torch.no_grad()
    def accepts(self, norm: Float[Tensor, ""]) -> Tensor:
        """Whether a gradient of this norm is used (a flag on the device), and its place in the mean."""
        finite, first = norm.isfinite(), self.mean == 0
        accepted = finite & (first | (norm < self.factor * self.mean))
        # A refused norm still moves the mean, so that a lasting change of scale is followed.
        moved = torch.where(first, norm, 0.98 * self.mean + 0.02 * torch.minimum(norm, 10 * self.mean))
        self.mean.copy_(torch.where(finite, moved, self.mean))
        in_a_row = torch.where(accepted, 0, self.count[1] + 1)
        self.count.copy_(torch.stack([self.count[0] + ~accepted, in_a_row]))
        return accepted

    def counts(self) -> tuple[int, int]:
        """Steps left out in all, and the last ones in a row; read from the device."""
        return tuple(self.count.tolist())


@torch.no_grad()
def put_back(accepted: Tensor, kinds: Sequence[list[Tensor]], before: Sequence[Tensor]) -> None:
    """Where the flag is False give tensors of each kind what they held `before`, end to end, or zeros if they are new.

    By a choice between old and new: a product with 0 would keep what is not a number. In a few operations for all
    tensors of a kind, since two for each would be some 20,000 for a deep NVAE, which a GPU starts at a price.
    """
    for lines, old in zip_longest(kinds, before):
        now = torch.cat(lines)
        chosen = torch.where(accepted, now, torch.zeros_like(now) if old is None else old)
        torch._foreach_copy_(lines, chosen.split([len(part) for part in lines]))


def kinds(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Dense tensors by type, of at most so many elements together, as views of their memory from end to end."""
    found: list[list[Tensor]] = []
    size, dtype = 0, None
    for tensor in sorted(tensors, key=lambda tensor: str(tensor.dtype)):
        if tensor.dtype != dtype or size + tensor.numel() > _LARGEST:
            found.append([])
            size, dtype = 0, tensor.dtype
        size += tensor.numel()
        found[-1].append(tensor.detach().permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).view(-1))
    return found

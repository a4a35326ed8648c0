"""Gradient skipping: a step whose gradient is one to leave out changes nothing, without a word to the host."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LARGEST = 1 << 26  # elements that are chosen between at once


class GradientSkips(nn.Module):
    """Leaves a step out whose loss or gradient is not finite, or whose gradient norm is more than `factor` times its
    running mean.

    Fused optimisers leave weights and moments alone by themselves; what else a step changes is copied and put back.
    Measured on the laptop profile's networks, the norm takes 0.4 to 1.8 % of a step.
    """

    def __init__(self, factor: float, device: torch.device):
        super().__init__()
        self.factor, self.copies = factor, Copies()
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
        return tuple(self.count.tolist())

    def count_on_from(self, skipped: int) -> None:
        """So many steps in all, and none in a row."""
        self.count.copy_(torch.tensor([skipped, 0]))


class Copies:
    """Copies of many tensors, made and put back in a few operations for all of them.

    Measured in operations, which a GPU starts at a price: two for each tensor otherwise, some 20,000 for a deep NVAE.
    """

    def __init__(self):
        self.tensors: list[Tensor] = []
        self.parts: list[_Part] = []

    @torch.no_grad()
    def take(self, tensors: Sequence[Tensor]) -> None:
        """Copy what the tensors hold now."""
        self._know(tensors, begin_at_zero=False)
        for part in self.parts:
            torch._foreach_copy_(part.copies, part.tensors)

    @torch.no_grad()
    def put_back_unless(self, flag: Tensor, tensors: Sequence[Tensor]) -> None:
        """Give the tensors what they held at `take`, and those that were not there zeros, where `flag` is False.

        By a choice between old and new: a product with 0 would keep what is not a number.
        """
        self._know(tensors, begin_at_zero=True)
        for part in self.parts:
            torch._foreach_copy_(part.news, part.tensors)
            torch.where(flag, part.new, part.copy, out=part.new)
            torch._foreach_copy_(part.tensors, part.news)

    def _know(self, tensors: Sequence[Tensor], begin_at_zero: bool) -> None:
        if len(tensors) == len(self.tensors) and all(map(lambda a, b: a is b, tensors, self.tensors)):
            return
        if not begin_at_zero:
            self.parts = []
        known = {id(tensor) for part in self.parts for tensor in part.tensors}
        fresh = [tensor for tensor in tensors if id(tensor) not in known]
        self.parts += [_Part(group) for group in _groups(fresh)]
        # One place serves all parts of a kind, one after another.
        places: dict[torch.dtype, Tensor] = {}
        for part in sorted(self.parts, key=lambda part: -len(part.copy)):
            part.use(places.setdefault(part.copy.dtype, torch.empty_like(part.copy)))
        self.tensors = list(tensors)


class _Part:
    """Tensors of one type, and room for them in one piece."""

    def __init__(self, tensors: list[Tensor]):
        self.tensors = tensors
        self.copy = tensors[0].new_zeros(sum(tensor.numel() for tensor in tensors))
        self.copies = _views(self.copy, tensors)

    def use(self, place: Tensor) -> None:
        self.new = place[: len(self.copy)]
        self.news = _views(self.new, self.tensors)


def _views(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Parts of `flat` in the shapes and layouts of some tensors."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.as_strided(t.shape, t.stride()) for part, t in zip(parts, tensors, strict=True)]


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type, of so many elements together that a copy of them is small beside a large model."""
    for _, alike in itertools.groupby(sorted(tensors, key=lambda t: str(t.dtype)), key=lambda t: t.dtype):
        group, size = [], 0
        for tensor in alike:
            if group and size + tensor.numel() > _LARGEST:
                yield group
                group, size = [], 0
            group.append(tensor)
            size += tensor.numel()
        yield group

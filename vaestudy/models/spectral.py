"""Spectral regularisation: what keeps the KL of a deep hierarchy from growing without bound."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vaestudy.models.layers import Conv, NormAct


class SpectralPenalty(nn.Module):
    """Sum of the largest singular values of all convolutions, and of the largest scale of each batch norm.

    Vahdat & Kautz (2020), sec. 3.2: each kernel as a matrix (outputs, inputs · height · width), its norm estimated by
    power iteration from where the last step left off. Kernels of one shape are iterated together. The vectors are
    buffers, so that a checkpoint holds them.

    Args:
        model: whose Conv kernels (as they act, weight normalisation included) and NormAct scales are penalised.
        iterations: power iterations a step.
        first: power iterations with the first weights.
    """

    def __init__(self, model: nn.Module, iterations: int = 4, first: int = 36):
        super().__init__()
        self.iterations = iterations
        self.norms = [m for m in model.modules() if isinstance(m, NormAct) and m.weight is not None]
        self.convs: dict[str, list[Conv]] = {}
        for conv in (module for module in model.modules() if isinstance(module, Conv)):
            kind = "x".join(map(str, conv.weight.shape)) + ("" if conv.log_norm is None else "_normed")
            self.convs.setdefault(f"left_{kind}", []).append(conv)
        generator = torch.Generator().manual_seed(0)
        for name, convs in self.convs.items():
            start = torch.randn(len(convs), convs[0].out_channels, generator=generator)
            left = F.normalize(start, dim=1).to(convs[0].weight.device)
            self.register_buffer(name, _iterate(_matrices(convs), left, first)[0])

    def forward(self) -> Float[Tensor, ""]:
        """The penalty; its gradient reaches the weights alone, not the power iteration."""
        total = 0.0
        for name, convs in self.convs.items():
            kernels = _matrices(convs)
            left, right = _iterate(kernels, getattr(self, name), self.iterations)
            getattr(self, name).copy_(left)
            total = total + torch.einsum("no,noi,ni->", left, kernels, right)
        return sum((norm.weight.abs().max() for norm in self.norms), start=total)


def _matrices(convs: list[Conv]) -> Float[Tensor, "n o d"]:
    return torch.stack([conv.kernel().flatten(1) for conv in convs]).float()


@torch.no_grad()
def _iterate(kernels: Tensor, left: Float[Tensor, "n o"], count: int) -> tuple[Tensor, Tensor]:
    """Left and right vectors after `count` power iterations, 1 or more."""
    for _ in range(count):
        right = F.normalize(torch.einsum("no,noi->ni", left, kernels), dim=1, eps=1e-3)
        left = F.normalize(torch.einsum("noi,ni->no", kernels, right), dim=1, eps=1e-3)
    return left, right

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
    buffers, so that a checkpoint holds them; the first estimate after a start takes `first` iterations.

    Args:
        model: whose Conv kernels (as they act, weight normalisation included) and NormAct scales are penalised.
        iterations: power iterations a step.
        first: power iterations of the first step.
    """

    def __init__(self, model: nn.Module, iterations: int = 4, first: int = 40):
        super().__init__()
        self.iterations, self.first = iterations, first
        modules = list(model.modules())
        self.convs: dict[str, list[Conv]] = {}
        for conv in (module for module in modules if isinstance(module, Conv)):
            kind = "x".join(map(str, conv.weight.shape)) + ("" if conv.log_norm is None else "_normed")
            self.convs.setdefault(f"left_{kind}", []).append(conv)
        self.norms = [m for m in modules if isinstance(m, NormAct) and m.weight is not None]
        generator = torch.Generator().manual_seed(0)
        for name, convs in self.convs.items():
            start = torch.randn(len(convs), convs[0].out_channels, generator=generator)
            self.register_buffer(name, F.normalize(start, dim=1).to(convs[0].weight.device))
        self.started = False

    def get_extra_state(self) -> Tensor:
        """Whether the vectors have been iterated, for the checkpoint."""
        return torch.tensor(self.started)

    def set_extra_state(self, state: Tensor) -> None:
        """Take up where a checkpoint left off."""
        self.started = bool(state)

    def forward(self) -> Float[Tensor, ""]:
        """The penalty; its gradient reaches the weights alone, not the power iteration."""
        iterations = self.iterations if self.started else self.first
        self.started, total = True, 0.0
        for name, convs in self.convs.items():
            kernels, left = torch.stack([conv.kernel().flatten(1) for conv in convs]).float(), getattr(self, name)
            with torch.no_grad():
                for _ in range(iterations):
                    right = _unit(torch.einsum("no,noi->ni", left, kernels))
                    left = _unit(torch.einsum("noi,ni->no", kernels, right))
                getattr(self, name).copy_(left)
            total = total + torch.einsum("no,noi,ni->", left, kernels, right)
        for norm in self.norms:
            total = total + norm.weight.abs().max()
        return total


def _unit(vectors: Float[Tensor, "n d"], eps: float = 1e-3) -> Float[Tensor, "n d"]:
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=eps)

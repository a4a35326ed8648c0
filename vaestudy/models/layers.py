"""The layers of NVAE's cells: weight-normalised convolutions, batch norm with activation, a penalty on both."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

ITERATIONS = 4  # of the power iteration, a step


class Conv(nn.Conv2d):
    """A "same" convolution, weight-normalised unless told otherwise, with an optional fixed mask on its weight.

    Each output channel's kernel has norm exp(log_norm) (Salimans & Kingma 2016, sec. 2, with a logarithmic scale) and
    is made anew where it is needed: a stored one could neither be copied nor saved.

    Args:
        inputs, outputs: channels.
        size: odd side of the kernel.
        weight_norm: whether the kernel's norms are parameters of their own.
        mask: multiplies the weight, (outputs, inputs / groups, size, size).
        options: stride, groups and bias of torch.nn.Conv2d.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, weight_norm: bool = True, mask: Tensor | None = None, **options
    ):
        super().__init__(inputs, outputs, size, padding=size // 2, **options)
        self.register_buffer("mask", mask, persistent=False)
        self.log_norm = None
        if weight_norm:
            self.log_norm = nn.Parameter(torch.log(channel_norm(self.kernel().detach()) + 1e-2))

    def kernel(self) -> Float[Tensor, "o i kh kw"]:
        """The weight that convolves."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        if self.log_norm is None:
            return weight
        return weight * (torch.exp(self.log_norm) / (channel_norm(weight) + 1e-5))

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        if not gradients_by_hand(self, x):
            return self._conv_forward(x, self.kernel(), self.bias)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return DepthwiseConv.apply(x.to(dtype), self.kernel().to(dtype), bias)


def gradients_by_hand(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether this convolution of x is one for `DepthwiseConv`."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1 and conv.stride == (1, 1)
    return depthwise and x.device.type == "cpu" and torch.is_grad_enabled()


class DepthwiseConv(torch.autograd.Function):
    """(x, kernel, bias) -> F.conv2d with a kernel of odd side for each channel, with gradients that cost a CPU less.

    The one by x is the convolution with the mirrored kernel. The one by the kernel is the convolution of x with the
    gradient for a kernel, images and channels together being the groups. Measured on an AMD EPYC (family 26) in bf16,
    two threads: with torch's own gradients a step takes 1.28 of the time for laptop32_cells at batch 32, 1.11 for an
    ablation, 1.48 for an NVAE of 32 channels.
    """

    @staticmethod
    def forward(
        ctx, x: Float[Tensor, "n c h w"], kernel: Float[Tensor, "c 1 k k"], bias: Float[Tensor, " c"] | None
    ) -> Float[Tensor, "n c h w"]:
        ctx.save_for_backward(x, kernel)
        return F.conv2d(x, kernel, bias, padding=kernel.shape[2] // 2, groups=len(kernel))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernel = ctx.saved_tensors
        n, c, h, w = x.shape
        needs, padding = ctx.needs_input_grad, kernel.shape[2] // 2
        to_x = F.conv2d(grad, kernel.flip(2, 3), padding=padding, groups=c) if needs[0] else None
        images, kernels = x.contiguous().view(1, n * c, h, w), grad.contiguous().view(n * c, 1, h, w)
        taps = F.conv2d(images, kernels, padding=padding, groups=n * c)
        return to_x, taps.view(n, *kernel.shape).sum(0), grad.sum((0, 2, 3)) if needs[2] else None


def channel_norm(weight: Float[Tensor, "o i kh kw"]) -> Float[Tensor, "o 1 1 1"]:
    """The Euclidean norm of each output channel's kernel."""
    return torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


class NormAct(nn.Module):
    """Batch normalisation (or none), then Swish, ELU or nothing."""

    eps = 1e-5

    def __init__(self, channels: int, activation: str = "none", *, norm: bool = True):
        super().__init__()
        self.activation = activation
        self.momentum = 0.05  # the share of a new batch in the running statistics
        # Collects a tensor of every process along a new first axis, where a batch is that of all of them.
        self.gather: Callable[[Tensor], Tensor] | None = None
        self.weight = self.bias = None
        if norm:
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if self.weight is not None and self.training and self.gather is not None:
            x = self.normalise_together(x)
        elif self.weight is not None:
            statistics = self.running_mean, self.running_var, self.weight, self.bias
            x = F.batch_norm(x, *statistics, self.training, self.momentum, self.eps)
        if self.activation == "swish":
            return F.silu(x)
        return F.elu(x) if self.activation == "elu" else x

    def normalise_together(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Batch normalisation over the batches of all processes, which are equally large."""
        parts = self.gather(torch.stack(torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)))
        mean = parts[:, 1].mean(0)
        variance = (parts[:, 0] + (parts[:, 1] - mean).square()).mean(0)
        with torch.no_grad():
            count = len(parts) * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul((self.bias - mean * scale)[:, None, None], x, scale[:, None, None]).to(x.dtype)


@contextmanager
def norms_set(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Inside the block, the attribute `name` of every batch norm of `module` has this value."""
    before = {part: getattr(part, name) for part in module.modules() if isinstance(part, NormAct)}
    try:
        for norm in before:
            setattr(norm, name, value)
        yield
    finally:  # the block may end by an exception, as each recomputation of a checkpoint does
        for norm, usual in before.items():
            setattr(norm, name, usual)


def checkpointed(module: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), a part of `module`, of which the backward pass makes all tensors again from x.

    The second pass does not count the batch again in the running statistics. Nothing may be random in the part: a CUDA
    graph forbids to read the state of the generators.
    """
    contexts = lambda: (nullcontext(), norms_set(module, "momentum", 0.0))  # noqa: E731
    return checkpoint(function, x, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


class NormActConv(nn.Module):
    """Normalisation, activation, upsampling of the map where wanted, convolution.

    Nearest-neighbour upsampling commutes with everything before it, so that part runs on a quarter of the pixels.
    """

    def __init__(self, conv: Conv, activation: str, *, norm: bool, upsample: bool = False):
        super().__init__()
        self.norm_act = NormAct(conv.in_channels, activation, norm=norm)
        self.conv, self.upsample = conv, upsample

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        x = self.norm_act(x)
        return self.conv(F.interpolate(x, scale_factor=2) if self.upsample else x)


class SpectralPenalty(nn.Module):
    """Sum of the largest singular values of all convolutions, and of the largest scale of each batch norm.

    It keeps the KL of a deep hierarchy from growing without bound. Vahdat & Kautz (2020), sec. 3.2: each kernel as a
    matrix (outputs, inputs · height · width), power iterations from where the last step left off. Kernels of one shape
    are iterated together; their vectors are buffers, so that a checkpoint holds them.

    Args:
        model: whose Conv kernels (as they act, weight normalisation included) and NormAct scales are penalised.
        first: power iterations with the first weights.
    """

    def __init__(self, model: nn.Module, first: int = 36):
        super().__init__()
        self.norms = [m for m in model.modules() if isinstance(m, NormAct) and m.weight is not None]
        self.convs: dict[str, list[Conv]] = {}
        for conv in (module for module in model.modules() if isinstance(module, Conv)):
            kind = "x".join(map(str, conv.weight.shape)) + ("" if conv.log_norm is None else "_normed")
            self.convs.setdefault(f"left_{kind}", []).append(conv)
        generator = torch.Generator().manual_seed(0)
        for name, convs in self.convs.items():
            start = torch.randn(len(convs), convs[0].out_channels, generator=generator)
            self.register_buffer(name, F.normalize(start, dim=1).to(convs[0].weight.device))
            self._largest(name, first)

    def forward(self) -> Float[Tensor, ""]:
        """The penalty; its gradient reaches the weights alone, not the power iteration."""
        largest = [self._largest(name, ITERATIONS) for name in self.convs]
        return sum([*largest, *(norm.weight.abs().max() for norm in self.norms)])

    def _largest(self, name: str, iterations: int) -> Float[Tensor, ""]:
        """The sum of the largest singular values of the kernels of one shape, after 1 power iteration or more."""
        kernels = torch.stack([conv.kernel().flatten(1) for conv in self.convs[name]]).float()
        left = getattr(self, name)
        with torch.no_grad():
            for _ in range(iterations):
                right = F.normalize(torch.einsum("no,noi->ni", left, kernels), dim=1, eps=1e-3)
                left = F.normalize(torch.einsum("noi,ni->no", kernels, right), dim=1, eps=1e-3)
            getattr(self, name).copy_(left)
        return torch.einsum("no,noi,ni->", left, kernels, right)

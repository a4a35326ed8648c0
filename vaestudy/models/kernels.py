"""The one gradient that is written by hand: that of a depthwise convolution on a CPU."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def gradients_by_hand(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether this convolution of x is one for `DepthwiseConv`."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1 and conv.stride == (1, 1)
    return depthwise and x.device.type == "cpu" and torch.is_grad_enabled()


class DepthwiseConv(torch.autograd.Function):
    """(x, kernel, bias) -> F.conv2d with a kernel of odd side for each channel, with gradients that cost a CPU less.

    The one by x is the convolution with the mirrored kernel. The one by the kernel is the convolution of x with the
    gradient for a kernel, images and channels together being the groups. Measured on an AMD EPYC (family 26) in bf16,
    one thread: with torch's own gradients a step takes 1.54 of the time for laptop32_cells at batch 32, 1.41 at batch
    8, 1.29 for an ablation, 1.86 for an NVAE of 32 channels.
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

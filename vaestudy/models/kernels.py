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
    gradient for a kernel, images and channels together being the groups.
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
        padding, (to_x, to_kernel, to_bias) = kernel.shape[2] // 2, ctx.needs_input_grad
        found: list[Tensor | None] = [None] * 3
        if to_x:
            found[0] = F.conv2d(grad, kernel.flip(2, 3), padding=padding, groups=c)
        if to_kernel:
            images, kernels = x.contiguous().view(1, n * c, h, w), grad.contiguous().view(n * c, 1, h, w)
            taps = F.conv2d(images, kernels, padding=padding, groups=n * c)
            found[1] = taps.view(n, *kernel.shape).sum(0)
        if to_bias:
            found[2] = grad.sum((0, 2, 3))
        return tuple(found)

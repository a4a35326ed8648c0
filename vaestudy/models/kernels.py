"""Gradients written by hand and other special cases: for each, what it replaces in plain torch.

`ENABLED` holds the names of those in use. A benchmark takes one out to time a training without it; the numbers agree
to rounding either way.

| name | what it is | in plain torch |
|---|---|---|
| depthwise | gradients of a depthwise convolution on a CPU | those of F.conv2d |
| depthwise_tiles | the one by the kernel, in bf16 on a CPU with a matrix unit | `depthwise` elsewhere |
| norm_act_conv | batch norm, activation and convolution that keep their input alone | torch.utils.checkpoint |
| weight_norm | weight normalisation as one node of the graph | five operations |
| full_precision_conv | a convolution in fp32 with its gradients in bf16 | fp32 for both |
| upsample_products | interpolation as products, for torch.compile | F.interpolate |
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ENABLED = {"depthwise", "depthwise_tiles", "norm_act_conv", "weight_norm", "full_precision_conv", "upsample_products"}
# Channels that a CPU's matrix unit multiplies with each other at once, in bf16; 1 where it has none.
_TILE = 16 if torch.cpu._is_amx_tile_supported() else 1


def weight_norm(weight: Float[Tensor, "o i kh kw"], log_norm: Float[Tensor, "o 1 1 1"]) -> Float[Tensor, "o i kh kw"]:
    """exp(log_norm) w / (||w|| + 1e-5) for each output channel (Salimans & Kingma 2016, with a logarithmic scale)."""
    if "weight_norm" in ENABLED:
        return _WeightNorm.apply(weight, log_norm)
    return weight * (torch.exp(log_norm) / (channel_norm(weight) + 1e-5))


def channel_norm(weight: Float[Tensor, "o i kh kw"]) -> Float[Tensor, "o 1 1 1"]:
    """The Euclidean norm of each output channel's kernel."""
    return torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


class _WeightNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, log_norm: Tensor) -> Tensor:
        norm = channel_norm(weight)
        scale = torch.exp(log_norm) / (norm + 1e-5)
        ctx.save_for_backward(weight, norm, scale)
        return weight * scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        weight, norm, scale = ctx.saved_tensors
        to_log_norm = (grad * weight).sum((1, 2, 3), keepdim=True) * scale
        # A weight of zero has no direction: its norm's gradient is left out instead of divided by zero.
        pull = to_log_norm / ((norm + 1e-5) * norm).clamp(min=1e-30)
        return (grad * scale).addcmul_(weight, pull, value=-1), to_log_norm


def gradients_by_hand(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether this convolution of x gets the gradients of `depthwise_gradients`."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1 and conv.stride == (1, 1)
    return depthwise and x.device.type == "cpu" and "depthwise" in ENABLED


def depthwise_gradients(
    grad: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"], kernel: Float[Tensor, "c 1 k k"], needs: list[bool]
) -> list[Tensor | None]:
    """Gradients by x, kernel and bias of a depthwise convolution with a kernel of odd side.

    On a CPU both of the first two take a half to a tenth of the time of torch's own. The one by x is the convolution
    with the mirrored kernel. The one by the kernel is the convolution of x with `grad` for a kernel, images and
    channels together being the groups; in bf16 on a CPU with a matrix unit, it is the diagonal of what a convolution
    of 16 channels with 16 would get, in half the time though it multiplies 16 times as often.
    """
    n, c, h, w = x.shape
    size, padding = kernel.shape[2], kernel.shape[2] // 2
    to_x = F.conv2d(grad, kernel.flip(2, 3), padding=padding, groups=c) if needs[0] else None
    tiles = "depthwise_tiles" in ENABLED and _TILE > 1 and c % _TILE == 0 and x.dtype == torch.bfloat16
    to_kernel = None
    if needs[1] and tiles:
        shape = (c, _TILE, size, size)
        wide = torch.nn.grad.conv2d_weight(x, shape, grad, padding=padding, groups=c // _TILE)
        diagonal = wide.view(-1, _TILE, _TILE, size, size).diagonal(dim1=1, dim2=2)
        to_kernel = diagonal.movedim(-1, 1).reshape(kernel.shape)
    elif needs[1]:
        images, kernels = x.contiguous().view(1, n * c, h, w), grad.contiguous().view(n * c, 1, h, w)
        taps = F.conv2d(images, kernels, padding=padding, groups=n * c)
        to_kernel = taps.view(n, *kernel.shape).sum(0)
    return [to_x, to_kernel, grad.sum((0, 2, 3)) if needs[2] else None]


def conv_gradients(conv: nn.Conv2d, grad: Tensor, x: Tensor, kernel: Tensor, needs: list[bool]) -> list[Tensor | None]:
    """Gradients by x, kernel and bias of a convolution, those that are needed."""
    if gradients_by_hand(conv, x):
        return depthwise_gradients(grad, x, kernel, needs)
    bias_shape = [conv.out_channels] if needs[2] else None
    geometry = (conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups)
    return list(torch.ops.aten.convolution_backward(grad, x, kernel, bias_shape, *geometry, needs))


class DepthwiseConv(torch.autograd.Function):
    """(x, kernel, bias, conv) -> the convolution, with `depthwise_gradients`."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, conv: nn.Conv2d) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.conv = conv
        return conv._conv_forward(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return *conv_gradients(ctx.conv, grad, *ctx.saved_tensors, list(ctx.needs_input_grad[:3])), None


class FullPrecisionConv(torch.autograd.Function):
    """(x, kernel, bias, conv, dtype) -> the convolution in the precision of x, with gradients computed in `dtype`."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, conv: nn.Conv2d, dtype: torch.dtype):
        ctx.save_for_backward(x.to(dtype), kernel.to(dtype))
        ctx.conv = conv
        return conv._conv_forward(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernel = ctx.saved_tensors
        found = conv_gradients(ctx.conv, grad.to(x.dtype), x, kernel, list(ctx.needs_input_grad[:3]))
        return *(None if one is None else one.to(grad.dtype) for one in found), None, None


class NormActConv(torch.autograd.Function):
    """(x, norm weight, norm bias, kernel, bias, layer) -> layers.NormActConv, of which the input alone is kept.

    The backward pass makes the normalised and activated map again (NVAE, sec. 3.3.2, taken one step further: the
    convolution's input is not kept either).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, kernel: Tensor, shift: Tensor | None, layer: nn.Module):
        norm = layer.norm_act
        active, mean, inverse = torch.native_batch_norm(
            x, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        active = norm.activate(active, inplace=True)
        active = (upsample2x(active) if layer.upsample else active).to(kernel.dtype)
        ctx.save_for_backward(x, weight, bias, kernel, mean, inverse)
        ctx.layer = layer
        return layer.conv._conv_forward(active, kernel, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, bias, kernel, mean, inverse = ctx.saved_tensors
        norm, upsample = ctx.layer.norm_act, ctx.layer.upsample
        normal = F.batch_norm(x, mean, inverse**-2 - norm.eps, weight, bias, False, 0.0, norm.eps)
        active = norm.activate(normal)
        active = (upsample2x(active) if upsample else active).to(kernel.dtype)
        needs = [True, *ctx.needs_input_grad[3:5]]
        grad, to_kernel, to_shift = conv_gradients(ctx.layer.conv, grad, active, kernel, needs)
        if upsample:
            grad = F.avg_pool2d(grad, 2, divisor_override=1)
        grad = _activation_gradient(norm.activation, grad.to(x.dtype), normal)
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse, True, norm.eps, [True, True, True]
        )
        return to_x, to_weight, to_bias, to_kernel, to_shift, None


def _activation_gradient(activation: str, grad: Tensor, x: Tensor) -> Tensor:
    if activation == "swish":
        return torch.ops.aten.silu_backward(grad, x)
    return torch.ops.aten.elu_backward(grad, 1, 1, 1, False, x) if activation == "elu" else grad


def upsample2x(x: Float[Tensor, "n c h w"], mode: str = "nearest") -> Float[Tensor, "n c h2 w2"]:
    """Twice the side: "nearest" repeats each pixel, "bilinear" interpolates with the corners in their places.

    Compilers scatter the gradient of an interpolation, slowly and on CUDA in no fixed order, so they get copies and
    products instead, whose gradients are sums.
    """
    if not torch.compiler.is_compiling() or "upsample_products" not in ENABLED:
        return F.interpolate(x, scale_factor=2, mode=mode, align_corners=True if mode == "bilinear" else None)
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1)
    if mode == "nearest":
        x = x[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)
    else:
        x = (_interpolation_matrix(h, x) @ x.reshape(n, h, w * c)).view(n * 2 * h, w, c)
        x = (_interpolation_matrix(w, x) @ x).view(n, 2 * h, 2 * w, c)
    return x.permute(0, 3, 1, 2)


def _interpolation_matrix(size: int, like: Tensor) -> Float[Tensor, "size2 size"]:
    """Linear interpolation from `size` points to twice as many, ends on ends."""
    old = torch.arange(size, dtype=torch.float64, device=like.device)
    new = torch.linspace(0, size - 1, 2 * size, dtype=torch.float64, device=like.device)
    return (1 - (new[:, None] - old).abs()).clamp(min=0).to(like.dtype)

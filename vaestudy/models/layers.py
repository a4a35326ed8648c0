"""The layers of NVAE's cells: weight-normalised and depthwise convolutions, batch norm with its activation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NORM_ACTIVATIONS = ("bn_swish", "bn_elu", "wn_elu")
# Channels that a CPU's matrix unit multiplies with each other at once, in bf16; 1 where it has none.
_TILE = 16 if torch.cpu._is_amx_tile_supported() else 1


class Conv(nn.Conv2d):
    """A "same" convolution, weight-normalised unless told otherwise, with an optional fixed mask on its weight.

    Each output channel's kernel has norm exp(log_norm) (Salimans & Kingma 2016, sec. 2, with a logarithmic scale).
    The normalised kernel is made anew where it is needed: a stored one could neither be copied nor saved.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        weight_norm: bool = True,
        mask: Tensor | None = None,
    ):
        super().__init__(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=bias)
        self.register_buffer("mask", mask, persistent=False)
        self.log_norm = None
        if weight_norm:
            weight = self.weight.detach() if mask is None else self.weight.detach() * mask
            self.log_norm = nn.Parameter(torch.log(_norm(weight) + 1e-2))

    def kernel(self) -> Float[Tensor, "o i kh kw"]:
        """The weight that convolves."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        return weight if self.log_norm is None else _WeightNorm.apply(weight, self.log_norm)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        if self.is_depthwise and x.device.type == "cpu" and torch.is_grad_enabled():
            return _DepthwiseConv.apply(x.to(_compute_dtype(x)), *self.cast(x), self)
        return self.convolve(x, self.kernel(), self.bias)

    def exact(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """The convolution in the precision of x, whatever autocast says, which rules the gradients alone."""
        gradients = _compute_dtype(x)
        if gradients == x.dtype:
            return self(x)
        with torch.autocast(x.device.type, enabled=False):
            return _ExactConv.apply(x, self.kernel(), self.bias, self, gradients)

    def convolve(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, kernel, bias, self.stride, self.padding, self.dilation, self.groups)

    def cast(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias in the precision that autocast would convolve x in."""
        dtype = _compute_dtype(x)
        return self.kernel().to(dtype), None if self.bias is None else self.bias.to(dtype)

    def backward(self, grad: Tensor, x: Tensor, kernel: Tensor, needs: list[bool]) -> list[Tensor | None]:
        """Gradients by x, kernel and bias, those that are needed."""
        if self.is_depthwise and x.device.type == "cpu":
            return depthwise_gradients(grad, x, kernel, needs)
        bias_shape = [self.out_channels] if needs[2] else None
        geometry = (self.stride, self.padding, self.dilation, False, [0, 0], self.groups)
        return list(torch.ops.aten.convolution_backward(grad, x, kernel, bias_shape, *geometry, needs))

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved on its own, at full resolution."""
        return self.groups == self.in_channels == self.out_channels > 1 and self.stride == (1, 1)


def stacked_kernels(convs: Sequence[Conv]) -> Float[Tensor, "convs o d"]:
    """The kernels of convolutions that are alike, as matrices: as each one's `kernel`, but in a few operations."""
    weight = torch.cat([conv.weight if conv.mask is None else conv.weight * conv.mask for conv in convs])
    if convs[0].log_norm is not None:
        weight = _WeightNorm.apply(weight, torch.cat([conv.log_norm for conv in convs]))
    return weight.unflatten(0, (len(convs), -1)).flatten(2)


class _WeightNorm(torch.autograd.Function):
    """exp(log_norm) w / (||w|| + 1e-5) for each output channel: one node where autograd would need ten."""

    @staticmethod
    def forward(ctx, weight: Tensor, log_norm: Tensor) -> Tensor:
        norm = _norm(weight)
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


def _norm(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)


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
    to_kernel = None
    if needs[1] and _TILE > 1 and c % _TILE == 0 and x.dtype == torch.bfloat16:
        shape = (c, _TILE, size, size)
        wide = torch.nn.grad.conv2d_weight(x, shape, grad, padding=padding, groups=c // _TILE)
        diagonal = wide.view(-1, _TILE, _TILE, size, size).diagonal(dim1=1, dim2=2)
        to_kernel = diagonal.movedim(-1, 1).reshape(kernel.shape)
    elif needs[1]:
        images, kernels = x.contiguous().view(1, n * c, h, w), grad.contiguous().view(n * c, 1, h, w)
        taps = F.conv2d(images, kernels, padding=padding, groups=n * c)
        to_kernel = taps.view(n, *kernel.shape).sum(0)
    return [to_x, to_kernel, grad.sum((0, 2, 3)) if needs[2] else None]


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, conv: Conv) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.conv = conv
        return conv.convolve(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return *ctx.conv.backward(grad, *ctx.saved_tensors, list(ctx.needs_input_grad[:3])), None


class _ExactConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor | None, conv: Conv, gradients: torch.dtype):
        ctx.save_for_backward(x.to(gradients), kernel.to(gradients))
        ctx.conv = conv
        return conv.convolve(x, kernel, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, kernel = ctx.saved_tensors
        found = ctx.conv.backward(grad.to(x.dtype), x, kernel, list(ctx.needs_input_grad[:3]))
        return *(None if one is None else one.to(grad.dtype) for one in found), None, None


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
        return self.activate(x)

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

    def activate(self, x: Tensor, inplace: bool = False) -> Tensor:
        if self.activation == "swish":
            return F.silu(x, inplace)
        return F.elu(x, inplace=inplace) if self.activation == "elu" else x

    def activate_backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient of `activate` at x."""
        if self.activation == "swish":
            return torch.ops.aten.silu_backward(grad, x)
        return torch.ops.aten.elu_backward(grad, 1, 1, 1, False, x) if self.activation == "elu" else grad


@contextmanager
def batch_norm_momentum(module: nn.Module, momentum: float) -> Iterator[None]:
    """Inside the block, every batch norm of `module` gives a new batch this share in its running statistics."""
    norms = [part for part in module.modules() if isinstance(part, NormAct)]
    usual = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = momentum
        yield
    finally:  # the block may end by an exception, as each recomputation of a checkpoint does
        for norm, own in zip(norms, usual, strict=True):
            norm.momentum = own


class NormActConv(nn.Module):
    """Normalisation, activation, doubling of the map where wanted, convolution.

    Nearest-neighbour doubling commutes with everything before it, so that part runs on a quarter of the pixels.
    With `recompute` the backward pass makes normalised and activated maps again from the layer's input, which is
    then all that is kept (NVAE, sec. 3.3.2, taken one step further: the convolution's input is not kept either).
    """

    def __init__(self, norm_act: NormAct, conv: Conv, *, double: bool = False, recompute: bool = False):
        super().__init__()
        self.norm_act, self.conv, self.doubles = norm_act, conv, double
        self.recompute = recompute and norm_act.weight is not None

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        if self.recompute and self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            norm = self.norm_act
            return _NormActConv.apply(x, norm.weight, norm.bias, *self.conv.cast(x), self)
        x = self.norm_act(x)
        return self.conv(doubled(x) if self.doubles else x)


class _NormActConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, kernel: Tensor, shift: Tensor | None, layer):
        norm = layer.norm_act
        active, mean, inverse = torch.native_batch_norm(
            x, weight, bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
        active = norm.activate(active, inplace=True)
        active = (doubled(active) if layer.doubles else active).to(kernel.dtype)
        ctx.save_for_backward(x, weight, bias, kernel, mean, inverse)
        ctx.layer = layer
        return layer.conv.convolve(active, kernel, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, bias, kernel, mean, inverse = ctx.saved_tensors
        norm, double = ctx.layer.norm_act, ctx.layer.doubles
        normal = F.batch_norm(x, mean, inverse**-2 - norm.eps, weight, bias, False, 0.0, norm.eps)
        active = norm.activate(normal)
        active = (doubled(active) if double else active).to(kernel.dtype)
        needs = [True, *ctx.needs_input_grad[3:5]]
        grad, to_kernel, to_shift = ctx.layer.conv.backward(grad, active, kernel, needs)
        if double:
            grad = F.avg_pool2d(grad, 2, divisor_override=1)
        grad = norm.activate_backward(grad.to(x.dtype), normal)
        to_x, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse, True, norm.eps, [True, True, True]
        )
        return to_x, to_weight, to_bias, to_kernel, to_shift, None


def doubled(x: Float[Tensor, "n c h w"], mode: str = "nearest") -> Float[Tensor, "n c h2 w2"]:
    """Twice the side: "nearest" repeats each pixel, "bilinear" interpolates with the corners in their places.

    Compilers scatter the gradient of an interpolation, slowly and on CUDA in no fixed order, so they get copies and
    products instead, whose gradients are sums.
    """
    if not torch.compiler.is_compiling():
        return F.interpolate(x, scale_factor=2, mode=mode, align_corners=True if mode == "bilinear" else None)
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1)
    if mode == "nearest":
        x = x[:, :, None, :, None].expand(n, h, 2, w, 2, c).reshape(n, 2 * h, 2 * w, c)
    else:
        x = (_stretching(h, x) @ x.reshape(n, h, w * c)).view(n * 2 * h, w, c)
        x = (_stretching(w, x) @ x).view(n, 2 * h, 2 * w, c)
    return x.permute(0, 3, 1, 2)


def _stretching(size: int, like: Tensor) -> Float[Tensor, "size2 size"]:
    """The matrix of linear interpolation from `size` points to twice as many, ends on ends."""
    old = torch.arange(size, dtype=torch.float64, device=like.device)
    new = torch.linspace(0, size - 1, 2 * size, dtype=torch.float64, device=like.device)
    return (1 - (new[:, None] - old).abs()).clamp(min=0).to(like.dtype)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast, where it is on, would turn x into before a convolution."""
    device = x.device.type
    # Meta tensors, which hold no data, know no autocast; to ask whether a device does stops the compiler of torch 2.11.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return x.dtype
    return torch.get_autocast_dtype(device)

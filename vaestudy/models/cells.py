"""The residual cells of NVAE (Vahdat & Kautz 2020, sec. 3.1), with their squeeze-and-excitation and skips."""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from vaestudy.models.layers import Conv, NormAct, NormActConv, checkpointed
from vaestudy.models.nvae_config import NVAEConfig

BRANCH_SCALE = 0.1
# What a compiled network keeps for its backward pass under "norm_act": products, but nothing made from them by element.
_KEPT = [torch.ops.aten.convolution.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default]


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): a weight within (0, 1) for each channel from its mean."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 16, 4)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        mean = F.avg_pool2d(x, x.shape[2:]).flatten(1)  # unlike that of mean(), its gradient keeps the layout
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean))))
        return gate[:, :, None, None].to(x.dtype)


class FactorizedReduce(nn.Module):
    """The skip of a cell that halves the map: Swish, then 1x1 convolutions, each of another one of four pixels."""

    def __init__(self, inputs: int, outputs: int, *, weight_norm: bool = True):
        super().__init__()
        quarter = outputs // 4
        widths = [quarter, quarter, quarter, outputs - 3 * quarter]
        self.convs = nn.ModuleList(Conv(inputs, width, 1, weight_norm=weight_norm) for width in widths)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        x, offsets = F.silu(x), ((0, 0), (1, 1), (0, 1), (1, 0))
        return torch.cat([conv(x[:, :, i::2, j::2]) for conv, (i, j) in zip(self.convs, offsets, strict=True)], dim=1)


class UpsampleSkip(nn.Module):
    """The skip of a cell that doubles the map: 1x1 convolution, then upsampling (they commute, and this is cheaper)."""

    def __init__(self, inputs: int, outputs: int, *, weight_norm: bool = True):
        super().__init__()
        self.conv = Conv(inputs, outputs, 1, bias=False, weight_norm=weight_norm)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=True)


class Cell(nn.Module):
    """skip(x) + 0.1 gate(branch(x)): NVAE's residual cell; figures 3a (depthwise) and 3b (regular).

    Args:
        inputs, outputs: channels.
        kind: "regular" (two 3x3 convolutions) or "depthwise" (1x1 expansion, depthwise 5x5, 1x1 projection).
        config: its norm_activation, squeeze_excitation, weight_norm and checkpoint hold.
        resample: "none", "down" (half the side) or "up" (twice the side).
        expansion: hidden width of a depthwise cell in multiples of `inputs`.
    """

    def __init__(
        self, inputs: int, outputs: int, kind: str, config: NVAEConfig, *, resample: str = "none", expansion: int = 6
    ):
        super().__init__()
        norm, activation = config.norm_activation != "wn_elu", config.norm_activation[3:]
        layer = partial(NormActConv, activation=activation, norm=norm)
        normed, stride, upsample = {"weight_norm": config.weight_norm}, 1 + (resample == "down"), resample == "up"
        if kind == "regular":
            layers = [
                layer(Conv(inputs, outputs, 3, stride=stride, **normed), upsample=upsample),
                layer(Conv(outputs, outputs, 3, **normed)),
            ]
        else:
            # Each of these convolutions is followed by batch norm, which makes weight norm and bias idle.
            width, plain = expansion * inputs, {"bias": not norm, "weight_norm": config.weight_norm and not norm}
            layers = [
                layer(Conv(inputs, width, 1, **plain), activation="none"),
                layer(Conv(width, width, 5, stride=stride, groups=width, **plain), upsample=upsample),
                layer(Conv(width, outputs, 1, **plain)),
                NormAct(outputs, norm=norm),
            ]
        self.branch = nn.Sequential(*layers)
        self.gate = SqueezeExcitation(outputs) if config.squeeze_excitation else None
        skip = {"none": None, "down": FactorizedReduce, "up": UpsampleSkip}[resample]
        self.skip = skip and skip(inputs, outputs, **normed)
        self.checkpoint = config.checkpoint
        self.compiled = False  # for training steps

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        if not self.training or not torch.is_grad_enabled():
            return self.compute(x)
        step = compiled() if self.compiled and not torch.compiler.is_compiling() else Cell.recomputing
        return step(self, x)

    def recomputing(self, x: Tensor) -> Tensor:
        """`compute`, of whose tensors the backward pass makes some again."""
        if self.checkpoint == "none":
            return self.compute(x)
        if torch.compiler.is_compiling():  # a compiler updates the statistics once by itself
            keep = partial(create_selective_checkpoint_contexts, _KEPT)
            selective = {"context_fn": keep} if self.checkpoint == "norm_act" else {}
            return checkpoint(self.compute, x, use_reentrant=False, preserve_rng_state=False, **selective)
        return checkpointed(self, self.compute, x) if self.checkpoint == "cell" else self.compute(x, by_layer=True)

    def compute(self, x: Tensor, by_layer: bool = False) -> Tensor:
        branch = x
        for layer in self.branch:
            branch = checkpointed(layer, layer, branch) if by_layer else layer(branch)
        skip = x if self.skip is None else self.skip(x)
        if self.gate is None:
            return torch.add(skip, branch, alpha=BRANCH_SCALE)
        return torch.addcmul(skip, branch, self.gate(branch), value=BRANCH_SCALE)


@cache
def compiled() -> Callable[[Cell, Tensor], Tensor]:
    """A training step's pass of any cell: those of one kind and size share what is compiled once."""
    # Deep networks have more kinds than the usual limit.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    return torch.compile(Cell.recomputing, dynamic=False)

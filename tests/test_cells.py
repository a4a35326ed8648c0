import copy

import pytest
import torch
import torch.nn.functional as F

from vaestudy.models.cells import Cell, FactorizedReduce, SqueezeExcitation, UpsampleSkip
from vaestudy.models.layers import Conv, DepthwiseConv, NormAct
from vaestudy.models.nvae_config import NVAEConfig

OUTPUTS = {"none": 8, "down": 16, "up": 4}  # channels of a cell of 8


def cell_of(inputs: int, outputs: int, kind: str, resample: str = "none", expansion: int = 6, **switches) -> Cell:
    return Cell(inputs, outputs, kind, NVAEConfig(**switches), resample=resample, expansion=expansion)


def test_weight_norm():
    conv = Conv(5, 7, 3).double()
    before = conv.weight.flatten(1).norm(dim=1)
    expected = torch.exp(conv.log_norm.flatten()) * before / (before + 1e-5)
    assert torch.allclose(conv.kernel().flatten(1).norm(dim=1), expected)
    assert torch.allclose(conv.log_norm.flatten().exp(), before + 1e-2, rtol=1e-6)
    torch.nn.init.zeros_(conv.weight)  # no direction, and yet a gradient
    conv(torch.randn(1, 5, 4, 4, dtype=torch.float64)).sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters())


@pytest.mark.parametrize(("size", "bias"), [(3, True), (5, False)])
def test_gradients_of_a_depthwise_convolution_are_finite_differences(size, bias):
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv = Conv(3, 3, size, groups=3, bias=bias, weight_norm=False).double()
    out = conv(x)
    assert "DepthwiseConv" in out.grad_fn.name()
    assert torch.allclose(out, F.conv2d(x, conv.weight, conv.bias, padding=size // 2, groups=3))
    assert torch.autograd.gradcheck(DepthwiseConv.apply, (x, conv.weight, conv.bias))


def test_gradients_of_a_depthwise_convolution_in_bf16():
    conv, x, upstream = Conv(32, 32, 5, groups=32), torch.randn(3, 32, 6, 7), torch.randn(3, 32, 6, 7)
    found = []
    for half in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = conv(leaf)
        assert out.dtype == (torch.bfloat16 if half else torch.float32)
        found.append(torch.autograd.grad(out, [leaf, *conv.parameters()], upstream.to(out.dtype)))
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("kind", ["regular", "depthwise"])
@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_checkpointing_changes_neither_numbers_nor_statistics(kind, resample):
    cell = cell_of(8, OUTPUTS[resample], kind, resample=resample, expansion=3).double()
    batches, results = torch.randn(3, 2, 8, 6, 6, dtype=torch.float64), []
    for mode in ("none", "norm_act", "cell"):
        twin, leaf = copy.deepcopy(cell), batches.clone().requires_grad_()
        twin.checkpoint = mode
        for x in leaf:  # the statistics move with every batch, once, also after a backward pass
            twin(x).square().sum().backward()
        results.append([leaf.grad, *(p.grad for p in twin.parameters()), *twin.buffers()])
    for plain, *others in zip(*results, strict=True):
        assert all(torch.allclose(plain, other) for other in others)


@pytest.mark.parametrize("kind", ["regular", "depthwise"])
@pytest.mark.parametrize("resample", ["none", "down", "up"])
@pytest.mark.parametrize("gated", [True, False])
def test_a_cell_is_its_skip_and_a_tenth_of_its_branch(kind, resample, gated):
    cell = cell_of(8, OUTPUTS[resample], kind, resample=resample, squeeze_excitation=gated).eval()
    x = torch.randn(2, 8, 6, 6)
    branch = cell.branch(x)
    skip = x if resample == "none" else cell.skip(x)
    gate = cell.gate(branch) if gated else 1
    assert torch.allclose(cell(x), skip + 0.1 * gate * branch, atol=1e-6)


def test_gate_by_hand():
    module, x = SqueezeExcitation(32), torch.randn(3, 32, 5, 4)
    hidden = torch.relu(x.mean((2, 3)) @ module.squeeze.weight.T + module.squeeze.bias)
    expected = torch.sigmoid(hidden @ module.excite.weight.T + module.excite.bias)
    assert torch.allclose(module(x).flatten(1), expected, atol=1e-6)
    assert module(x).shape == (3, 32, 1, 1)


def test_halving_skip_takes_its_quarters_from_four_offsets():
    skip, x = FactorizedReduce(6, 13), torch.randn(2, 6, 4, 8)
    widths = [conv.out_channels for conv in skip.convs]
    assert widths == [3, 3, 3, 4]
    parts = skip(x).split(widths, dim=1)
    for part, conv, (i, j) in zip(parts, skip.convs, ((0, 0), (1, 1), (0, 1), (1, 0)), strict=True):
        wanted = F.conv2d(F.silu(x)[:, :, i:, j:], conv.kernel(), conv.bias, stride=2)
        assert torch.allclose(part, wanted, atol=1e-6)


def test_doubling_skip_is_upsampling_then_convolution():
    skip, x = UpsampleSkip(6, 3), torch.randn(2, 6, 4, 3)
    wanted = skip.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
    assert torch.allclose(skip(x), wanted, atol=1e-6)


def test_an_up_cell_may_double_the_map_last():
    cell = cell_of(8, 4, "depthwise", resample="up", expansion=3, squeeze_excitation=False).double()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    expand, depth, project, norm = cell.branch
    hidden = F.interpolate(x, scale_factor=2, mode="nearest")  # first of all, as in the paper
    hidden = depth.conv(depth.norm_act(expand.conv(expand.norm_act(hidden))))
    wanted = cell.skip(x) + 0.1 * norm(project(hidden))
    assert torch.allclose(cell(x), wanted)


def test_statistics_forget_their_start_at_five_percent_a_batch():
    norm = NormAct(2)
    norm.running_mean.fill_(1.0)
    for _ in range(40):
        norm(torch.zeros(64, 2, 2, 2))
    assert norm.running_mean.tolist() == pytest.approx([0.95**40] * 2)


def test_synchronised_batch_norm_of_one_process_is_batch_norm():
    torch.manual_seed(0)
    x, seen = torch.randn(6, 5, 3, 3) * 3 + 2, []
    grad = torch.randn(6, 5, 3, 3)
    for synchronised in (False, True):
        norm, own = NormAct(5, "swish").train(), x.clone().requires_grad_()
        norm.gather = (lambda x: x[None]) if synchronised else None
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 5))
            norm.bias.copy_(torch.linspace(-1, 1, 5))
        y = norm(own)
        y.backward(grad)
        seen.append((y, own.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    for plain, together in zip(*seen, strict=True):
        torch.testing.assert_close(together, plain, atol=1e-5, rtol=1e-4)

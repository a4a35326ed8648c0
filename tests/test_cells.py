import copy
import math

import pytest
import torch
import torch.nn.functional as F

from vaestudy.models import kernels
from vaestudy.models.cells import Cell, FactorizedReduce, SqueezeExcitation, UpsampleSkip
from vaestudy.models.kernels import depthwise_gradients, upsample2x
from vaestudy.models.layers import Conv, NormAct, NormActConv


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def weight_normed(inputs: int, outputs: int, size: int, bias: bool = True, groups: int = 1) -> int:
    return size**2 * inputs * outputs // groups + outputs + (outputs if bias else 0)


def gate(channels: int) -> int:
    hidden = max(channels // 16, 4)
    return 2 * channels * hidden + hidden + channels


def depthwise(inputs: int, outputs: int, expansion: int) -> int:
    width = expansion * inputs
    return 2 * inputs + inputs * width + 2 * width + 25 * width + 2 * width + width * outputs + 2 * outputs


def randomise_norms(module: torch.nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, NormAct) and norm.weight is not None:
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(norm.bias)


def without(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(kernels, "ENABLED", kernels.ENABLED - set(names))


@pytest.mark.parametrize("width", [8, 32, 100])
def test_parameter_formulas(width):
    regular = 2 * (2 * width + weight_normed(width, width, 3)) + gate(width)
    assert parameters(Cell(width, width, "regular")) == regular
    double, quarter = 2 * width, width // 2
    down = 2 * width + weight_normed(width, double, 3) + 2 * double + weight_normed(double, double, 3) + gate(double)
    down += 3 * weight_normed(width, quarter, 1) + weight_normed(width, double - 3 * quarter, 1)
    assert parameters(Cell(width, double, "regular", resample="down")) == down
    assert parameters(Cell(width, width, "depthwise")) == depthwise(width, width, 6) + gate(width)
    up = depthwise(width, width // 2, 3) + gate(width // 2) + weight_normed(width, width // 2, 1, bias=False)
    assert parameters(Cell(width, width // 2, "depthwise", resample="up", expansion=3)) == up


def test_weight_norm():
    conv = Conv(5, 7, 3).double()
    before = conv.weight.flatten(1).norm(dim=1)
    expected = torch.exp(conv.log_norm.flatten()) * before / (before + 1e-5)
    assert torch.allclose(conv.kernel().flatten(1).norm(dim=1), expected)
    assert torch.allclose(conv.log_norm.flatten().exp(), before + 1e-2, rtol=1e-6)


@pytest.mark.parametrize("by_hand", [True, False])
def test_weight_norm_survives_a_weight_of_zero(monkeypatch, by_hand):
    without(monkeypatch, *([] if by_hand else ["weight_norm"]))
    conv = Conv(2, 3, 1)
    torch.nn.init.zeros_(conv.weight)
    conv(torch.randn(1, 2, 4, 4)).sum().backward()
    assert all(p.grad.isfinite().all() for p in conv.parameters())


@pytest.mark.parametrize("size", [3, 5])
def test_depthwise_gradients_against_autograd(size):
    x = torch.randn(3, 4, 6, 7, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    kernel, bias = torch.randn(4, 1, size, size, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (x, kernel, bias)]
    out = F.conv2d(*inputs, padding=size // 2, groups=4)
    upstream = torch.randn_like(out)
    wanted = torch.autograd.grad(out, inputs, upstream)
    found = depthwise_gradients(upstream, x, kernel, [True, True, True])
    assert all(torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("tile", [1, 16])
def test_depthwise_kernel_gradients_in_bf16(monkeypatch, tile):
    """Both ways round the exact gradient, the first once for each image. The second runs on any CPU, if slowly."""
    monkeypatch.setattr(kernels, "_TILE", tile)
    x, upstream = (torch.randn(3, 32, 6, 7).bfloat16().contiguous(memory_format=torch.channels_last) for _ in range(2))
    kernel = torch.randn(32, 1, 5, 5).bfloat16()
    exact = kernel.double().requires_grad_()
    F.conv2d(x.double(), exact, padding=2, groups=32).backward(upstream.double())
    found = depthwise_gradients(upstream, x, kernel, [False, True, False])[1]
    assert found.shape == kernel.shape
    assert (found.double() - exact.grad).abs().max() < 2**-8 * exact.grad.abs().max()


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_in_full_precision_has_coarse_gradients(monkeypatch, bias):
    conv, x = Conv(3, 5, 3, bias=bias), torch.randn(2, 3, 6, 6, requires_grad=True)
    exact = conv(x)
    upstream = torch.randn_like(exact)
    inputs = [x, *conv.parameters()]
    wanted = torch.autograd.grad(exact, inputs, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv.full_precision(x)
    found = torch.autograd.grad(out, inputs, upstream)
    assert torch.equal(out, exact)
    for rounded, one in zip(found, wanted, strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < (rounded - one).abs().max() < 0.02 * one.abs().max()
    assert torch.equal(torch.autograd.grad(conv.full_precision(x), x, upstream)[0], wanted[0])
    without(monkeypatch, "full_precision_conv")
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(conv.full_precision(x), inputs, upstream)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_for_a_compiler(monkeypatch, mode):
    """The copies and products that a compiler gets, against torch's interpolation, with their gradients."""
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = upsample2x(x, mode)
    upstream = torch.randn_like(wanted)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = upsample2x(x, mode)
    assert torch.allclose(found, wanted)
    assert torch.allclose(*(torch.autograd.grad(out, x, upstream)[0] for out in (found, wanted)))
    assert not any(node.startswith("Upsample") for node in graph(found))
    without(monkeypatch, "upsample_products")
    assert any(node.startswith("Upsample") for node in graph(upsample2x(x, mode)))


@pytest.mark.parametrize(
    ("name", "node", "make"),
    [
        ("depthwise", "DepthwiseConvBackward", lambda: Conv(4, 4, 5, groups=4)),
        ("weight_norm", "_WeightNormBackward", lambda: Conv(4, 6, 3)),
        ("norm_act_conv", "NormActConvBackward", lambda: Cell(4, 4, "regular", checkpoint="norm_act").branch[0]),
        ("norm_act_conv", "NormActConvBackward", lambda: Cell(4, 4, "depthwise", checkpoint="norm_act").branch[1]),
    ],
)
def test_gradients_by_hand_are_those_of_plain_torch(monkeypatch, name, node, make):
    plain = make().double()
    randomise_norms(plain)
    by_hand, results = copy.deepcopy(plain), []
    width = next(plain.parameters()).shape[0] if isinstance(plain, NormActConv) else 4
    batches = torch.randn(2, 3, width, 6, 6, dtype=torch.float64)
    for layer, switches in ((by_hand, []), (plain, [name])):
        without(monkeypatch, *switches)
        leaf = batches.clone().requires_grad_()
        outputs = [layer(x) for x in leaf]
        sum(out.square().sum() for out in outputs).backward()
        results.append([*outputs, leaf.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
        assert (node in graph(outputs[0])) == (not switches)
    assert all(torch.allclose(a, b) for a, b in zip(*results, strict=True))


def graph(out: torch.Tensor) -> set[str]:
    """The names of the nodes that made a tensor."""
    nodes, names = [out.grad_fn], set()
    while nodes:
        if (node := nodes.pop()) is not None:
            names.add(node.name())
            nodes += [before for before, _ in node.next_functions]
    return names


@pytest.mark.parametrize("activation", ["swish", "elu", "none"])
@pytest.mark.parametrize(("groups", "upsample"), [(1, False), (6, False), (6, True), (1, True)])
def test_recomputing_changes_no_number(activation, groups, upsample):
    conv = Conv(6, 6, 3, groups=groups, bias=groups == 1, weight_norm=groups == 1)
    plain = NormActConv(NormAct(6, activation), conv, upsample=upsample).double()
    randomise_norms(plain)
    lean = NormActConv(copy.deepcopy(plain.norm_act), copy.deepcopy(conv), upsample=upsample, recompute=True)
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    results = []
    for layer in (plain, lean):
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out.square().sum().backward()
        norm = layer.norm_act
        results.append([out, leaf.grad, *(p.grad for p in layer.parameters()), norm.running_mean, norm.running_var])
    assert len(results[0]) == len(results[1])
    assert all(torch.allclose(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", ["regular", "depthwise"])
@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_checkpointing_changes_neither_numbers_nor_statistics(kind, resample):
    outputs = {"none": 8, "down": 16, "up": 4}[resample]
    cells = {
        mode: Cell(8, outputs, kind, resample=resample, expansion=3, checkpoint=mode).double()
        for mode in ("none", "norm_act", "cell")
    }
    initial = copy.deepcopy(cells["none"].state_dict())
    batches, results = torch.randn(3, 2, 8, 6, 6, dtype=torch.float64), {}
    for mode, cell in cells.items():
        cell.load_state_dict(initial)
        leaf = batches.clone().requires_grad_()
        for x in leaf:  # the statistics move with every batch, once, also after a backward pass
            cell(x).square().sum().backward()
        results[mode] = [leaf.grad, *(p.grad for p in cell.parameters()), *cell.buffers()]
    for mode in ("norm_act", "cell"):
        assert all(torch.allclose(a, b) for a, b in zip(results["none"], results[mode], strict=True)), mode


@pytest.mark.parametrize("kind", ["regular", "depthwise"])
@pytest.mark.parametrize("resample", ["none", "down", "up"])
def test_a_cell_without_its_branch_is_its_skip(kind, resample):
    outputs = {"none": 8, "down": 16, "up": 4}[resample]
    cell = Cell(8, outputs, kind, resample=resample).eval()
    last = cell.branch[-1]
    for parameter in last.parameters() if kind == "depthwise" else (last.conv.weight, last.conv.bias):
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 8, 6, 6)
    assert torch.equal(cell(x), x if resample == "none" else cell.skip(x))


def test_the_branch_counts_a_tenth():
    cell = Cell(8, 8, "regular", squeeze_excitation=False).eval()
    x = torch.randn(2, 8, 4, 4)
    assert torch.allclose(cell(x), x + 0.1 * cell.branch(x))
    gated = Cell(8, 8, "regular").eval()
    branch = gated.branch(x)
    assert torch.allclose(gated(x), x + 0.1 * gated.gate(branch) * branch, atol=1e-6)


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
        wanted = F.conv2d(F.silu(x[:, :, i::2, j::2]), conv.kernel(), conv.bias)
        assert torch.allclose(part, wanted, atol=1e-6)


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
def test_doubling_skip_is_upsampling_then_convolution(upsampling):
    skip, x = UpsampleSkip(6, 3, upsampling=upsampling), torch.randn(2, 6, 4, 3)
    corners = {"align_corners": True} if upsampling == "bilinear" else {}
    wanted = skip.conv(F.interpolate(x, scale_factor=2, mode=upsampling, **corners))
    assert torch.allclose(skip(x), wanted, atol=1e-6)


def test_an_up_cell_may_double_the_map_last():
    cell = Cell(8, 4, "depthwise", resample="up", expansion=3, squeeze_excitation=False).double()
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    expand, depth, project, norm = cell.branch
    hidden = F.interpolate(x, scale_factor=2, mode="nearest")  # first of all, as in the paper
    hidden = depth.conv(depth.norm_act(expand.conv(expand.norm_act(hidden))))
    wanted = cell.skip(x) + 0.1 * norm(project(hidden))
    assert torch.allclose(cell(x), wanted)


@pytest.mark.parametrize("norm_activation", ["bn_elu", "wn_elu"])
@pytest.mark.parametrize("kind", ["regular", "depthwise"])
def test_ablated_cells(norm_activation, kind):
    cell = Cell(8, 8, kind, norm_activation=norm_activation)
    norms = [m for m in cell.modules() if isinstance(m, NormAct) and m.weight is not None]
    convs = [m for m in cell.modules() if isinstance(m, Conv)]
    assert (len(norms) == 0) == (norm_activation == "wn_elu")
    assert {m.activation for m in cell.modules() if isinstance(m, NormAct)} <= {"elu", "none"}
    if norm_activation == "wn_elu":
        assert all(conv.log_norm is not None and conv.bias is not None for conv in convs)
    assert cell(torch.randn(2, 8, 4, 4)).isfinite().all()


def test_statistics_forget_their_start_at_five_percent_a_batch():
    norm = NormAct(2)
    norm.running_mean.fill_(1.0)
    for _ in range(40):
        norm(torch.randn(64, 2, 2, 2) * 1e-6)
    assert norm.running_mean[0].item() == pytest.approx(0.95**40, rel=1e-3)
    assert math.isclose(norm.eps, 1e-5)


def test_half_precision_agrees_with_full():
    torch.manual_seed(1)
    cell = Cell(16, 16, "depthwise", checkpoint="norm_act").to(memory_format=torch.channels_last)
    x = torch.randn(4, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    full = cell(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = cell(x)
    half.float().sum().backward()
    assert (full - half).abs().max() < 0.05
    assert all(p.grad.isfinite().all() for p in cell.parameters())


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

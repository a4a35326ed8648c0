"""The spectral penalty against singular values, and the balance of NVAE against its numbers."""

import torch
from torch import nn

from vaestudy.models import NVAEConfig
from vaestudy.models.layers import Conv, NormAct, SpectralPenalty
from vaestudy.training.objective import balance_sizes


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        Conv(4, 8, 3), Conv(8, 8, 3, weight_norm=False), Conv(8, 8, 3), NormAct(8), Conv(8, 8, 5, groups=8)
    )


@torch.no_grad()
def truth(model: nn.Module) -> float:
    kernels = [m.kernel().flatten(1) for m in model if isinstance(m, Conv)]
    scales = [m.weight.abs().max() for m in model if isinstance(m, NormAct)]
    return float(sum(torch.linalg.matrix_norm(k, ord=2) for k in kernels) + sum(scales))


def test_the_estimate_is_below_the_singular_values_and_close_after_forty_iterations():
    model = network()
    estimate = SpectralPenalty(model, first=40)().item()
    assert 0.98 * truth(model) < estimate <= truth(model) + 1e-4
    assert SpectralPenalty(model, first=1)().item() < estimate


def test_the_gradient_is_that_of_the_largest_singular_value():
    conv = Conv(3, 5, 3, weight_norm=False)
    model = nn.Sequential(conv)
    SpectralPenalty(model, first=400)().backward()
    u, _, v = torch.linalg.svd(conv.weight.detach().flatten(1))
    torch.testing.assert_close(conv.weight.grad.flatten(1), torch.outer(u[:, 0], v[0]), atol=1e-3, rtol=1e-3)


def test_sizes_of_the_published_configurations():
    def counts(name):
        sizes = balance_sizes(NVAEConfig.preset(name).group_shapes).tolist()
        return [(size, sizes.count(size)) for size in dict.fromkeys(sizes)]

    assert counts("mnist") == [(1, 5), (2, 10)]
    assert counts("cifar10") == [(1, 30)]
    assert counts("celeba64") == [(1, 5), (2, 10), (4, 20)]
    assert counts("celeba_hq256") == [(1, 4), (4, 4), (16, 4), (32, 8), (64, 16)]

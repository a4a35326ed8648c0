import itertools
import math

import pytest
import torch
from scipy import stats

from vaestudy.errors import InputError
from vaestudy.models.likelihoods import Bernoulli, DiscretizedLogisticMixture, Gaussian


def one_pixel(levels: torch.Tensor, bits: int) -> torch.Tensor:
    """Images of one pixel, (n, channels) levels -> (n, channels, 1, 1)."""
    return (levels.double() / (2**bits - 1))[:, :, None, None]


def single_logistic(mean: float, log_scale: float, count: int) -> torch.Tensor:
    return torch.tensor([0.3, mean, log_scale], dtype=torch.float64)[None, :, None, None].expand(count, 3, 1, 1)


def level_probabilities(likelihood: DiscretizedLogisticMixture, mean: float, log_scale: float) -> torch.Tensor:
    levels = torch.arange(2**likelihood.bits)[:, None]
    params = single_logistic(mean, log_scale, len(levels))
    return likelihood.log_prob(params, one_pixel(levels, likelihood.bits)).exp()


def test_bernoulli_by_hand():
    params, x = torch.zeros(2, 1, 28, 28), torch.ones(2, 1, 28, 28)
    assert Bernoulli().log_prob(params, x).tolist() == pytest.approx([-543.427] * 2, abs=1e-3)
    params, x = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1), torch.tensor([1.0, 0.25]).view(1, 2, 1, 1)
    ones = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]
    expected = math.log(ones[0]) + 0.25 * math.log(ones[1]) + 0.75 * math.log(1 - ones[1])
    assert Bernoulli().log_prob(params, x).item() == pytest.approx(expected, rel=1e-6)
    assert Bernoulli().mean(params).flatten().tolist() == pytest.approx(ones)


def test_gaussian_against_scipy():
    likelihood = Gaussian()
    params = torch.randn(3, likelihood.parameters_per_pixel(2), 4, 5, dtype=torch.float64)
    params[0, 2:] = -1e4  # the density stays bounded
    x = torch.rand(3, 2, 4, 5, dtype=torch.float64)
    mean = torch.sigmoid(params[:, :2]).numpy()
    scale = torch.sqrt(params[:, 2:].exp() + 1 / 256**2).numpy()
    expected = stats.norm.logpdf(x.numpy(), mean, scale).sum((1, 2, 3))
    assert likelihood.log_prob(params, x).numpy() == pytest.approx(expected, rel=1e-9)
    assert likelihood.mean(params).numpy() == pytest.approx(mean)


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (0.9, -3.0), (3.0, -7.5)])
def test_levels_sum_to_one(mean, log_scale):
    for bits in (5, 8):
        likelihood = DiscretizedLogisticMixture(mixtures=1, bits=bits)
        assert level_probabilities(likelihood, mean, log_scale).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("mean", "log_scale", "total"),
    [(0.0, -1.0, 1.0625), (0.0, 0.0, 1.2697), (0.9, -3.0, 1.1268), (1.0, -5.0, 1.6415)],
)
def test_official_edges_reproduce_the_excess_mass(mean, log_scale, total):
    official = DiscretizedLogisticMixture(mixtures=1, official_edges=True)
    assert level_probabilities(official, mean, log_scale).sum().item() == pytest.approx(total, abs=1e-4)
    five_bits = DiscretizedLogisticMixture(mixtures=1, bits=5, official_edges=True)
    assert level_probabilities(five_bits, mean, log_scale).sum().item() == pytest.approx(1, abs=1e-12)


def test_colours_sum_to_one_together_and_in_turn():
    likelihood = DiscretizedLogisticMixture(mixtures=3, bits=3)
    params = torch.randn(1, 30, 1, 1, dtype=torch.float64)
    levels = torch.tensor(list(itertools.product(range(8), repeat=3)))
    joint = likelihood.log_prob(params.expand(512, -1, -1, -1), one_pixel(levels, 3)).exp().view(8, 8, 8)
    assert joint.sum().item() == pytest.approx(1, abs=1e-12)
    # Red alone is the one-channel mixture of red's own parameters: what green and blue do cannot matter.
    logits, red_means, red_scales = params[:, :3], params[:, 3:6], params[:, 12:15]
    red = torch.cat([logits, red_means, red_scales], dim=1).expand(8, -1, -1, -1)
    alone = likelihood.log_prob(red, one_pixel(torch.arange(8)[:, None], 3)).exp()
    assert joint.sum((1, 2)).numpy() == pytest.approx(alone.numpy(), abs=1e-12)


def test_two_components_of_three_colours_against_scipy():
    # For each component: its logit, then means, log-scales and coefficients tanh(c) for (R,G), (R,B), (G,B).
    logits, parts = (0.5, -0.3), ((0.1, -0.2, 0.3), (0.4, 0.2, -0.6))
    scales, raw = ((-1.0, -1.5, -2.0), (-0.5, -1.2, -0.8)), ((0.7, -0.4, 1.1), (-0.9, 0.3, 0.2))
    level = torch.tensor([[30, 200, 90]])
    red, green, blue = (2 * level[0] / 255 - 1).tolist()
    total = 0.0
    for logit, mean, log_scale, own in zip(logits, parts, scales, raw, strict=True):
        c = [math.tanh(value) for value in own]
        shifted = (mean[0], mean[1] + c[0] * red, mean[2] + c[1] * red + c[2] * green)
        cdfs = [stats.logistic(m, math.exp(s)).cdf for m, s in zip(shifted, log_scale, strict=True)]
        inside = [cdf(x + 1 / 255) - cdf(x - 1 / 255) for cdf, x in zip(cdfs, (red, green, blue), strict=True)]
        total += math.exp(logit) * math.prod(inside) / sum(math.exp(value) for value in logits)
    columns = [
        [logit, *mean, *log_scale, *own] for logit, mean, log_scale, own in zip(logits, parts, scales, raw, strict=True)
    ]
    params = torch.tensor(columns, dtype=torch.float64).T.reshape(1, 20, 1, 1)
    likelihood = DiscretizedLogisticMixture(mixtures=2)
    assert likelihood.parameters_per_pixel(3) == 20
    assert likelihood.log_prob(params, one_pixel(level, 8)).item() == pytest.approx(math.log(total))


def test_mixture_is_finite_far_outside_and_in_half_precision():
    likelihood = DiscretizedLogisticMixture(mixtures=2)
    params = (100 * torch.randn(3, 20, 4, 4)).bfloat16().requires_grad_()
    total = likelihood.log_prob(params, torch.randint(0, 256, (3, 3, 4, 4)).float() / 255)
    assert total.dtype == torch.float32
    total.sum().backward()
    assert total.isfinite().all()
    assert params.grad.isfinite().all()


def test_the_mean_of_a_mixture_is_that_of_its_levels():
    likelihood = DiscretizedLogisticMixture(mixtures=3, bits=5)
    params = 0.2 * torch.randn(1, 30, 1, 1, dtype=torch.float64)
    params[:, 12:21] -= 3.5  # narrow, so that no tail is folded in, but wider than a level
    levels = torch.tensor(list(itertools.product(range(32), repeat=3)))
    x = one_pixel(levels, 5)
    probabilities = likelihood.log_prob(params.expand(len(x), -1, -1, -1), x).exp()
    expected = (probabilities[:, None, None, None] * x).sum(0)
    assert torch.allclose(likelihood.mean(params)[0], expected, atol=1e-3)


def test_images_off_the_grid_are_refused():
    likelihood = DiscretizedLogisticMixture(bits=5)
    likelihood.check(torch.randint(0, 32, (2, 3, 4, 4)) / 31)
    with pytest.raises(InputError, match="5 bits"):
        likelihood.check(torch.full((2, 3, 4, 4), 100 / 255))


def test_senseless_settings_are_refused():
    for name, value in (("bits", 0), ("bits", 17), ("mixtures", 0)):
        with pytest.raises(InputError, match=name):
            DiscretizedLogisticMixture(**{name: value})

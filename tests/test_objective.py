"""The objective's parts against hand-computed values and brute force."""

import math

import pytest
import torch
from torch.distributions import Normal

from vaestudy.errors import InputError
from vaestudy.models import VAE, Terms
from vaestudy.objective import Objective, beta_norm, bound, capacity_cost, decompose_kl

TERMS = Terms(torch.tensor([10.0, 20.0]), torch.tensor([[1.0, 3.0], [0.5, 0.5]]))


def test_beta_weighs_the_sum_of_all_groups():
    parts = bound(TERMS, Objective(beta=4.0), progress=0.3, dataset_size=100)
    assert parts.loss.item() == pytest.approx(15 + 4 * 2.5)
    assert parts.nll.item() == pytest.approx(15)
    assert parts.kl.tolist() == pytest.approx([2.0, 0.5])


def test_derivative_by_beta_is_the_kl():
    low, high = (bound(TERMS, Objective(beta=b), 0.0, 100).loss for b in (1.0, 1.5))
    assert ((high - low) / 0.5).item() == pytest.approx(2.5)


def test_warmup_is_linear():
    objective = Objective(beta=2.0, warmup=0.5)
    assert [objective.weight(p) for p in (0.0, 0.25, 0.5, 0.9)] == [0, 0.5, 1, 1]
    assert bound(TERMS, objective, 0.25, 100).loss.item() == pytest.approx(15 + 2.5)


def test_capacity_rises_linearly():
    objective = Objective(kind="capacity", capacity=25.0, gamma=10.0, ramp=1.0)
    cost = capacity_cost(torch.tensor([12.5, 20.0]), objective, progress=0.5)
    assert cost.tolist() == pytest.approx([0, 75])
    assert bound(TERMS, objective, 1.0, 100).loss.item() == pytest.approx(15 + 10 * 22.5)


@pytest.mark.parametrize(
    ("beta", "latents", "dims", "expected"),
    [(1.0, 10, 4096, 0.00244), (4.0, 10, 4096, 0.00977), (20.0, 32, 4096, 0.156), (250.0, 32, 12288, 0.651)],
)
def test_normalised_beta_of_the_paper(beta, latents, dims, expected):
    assert beta_norm(beta, latents, dims) == pytest.approx(expected, rel=3e-3)


def posteriors(n=6, d=3):
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(n, d, generator=generator), 0.3 * torch.randn(n, d, generator=generator)
    return mean, log_std, mean + log_std.exp() * torch.randn(n, d, generator=generator)


@pytest.mark.parametrize("dataset_size", [6, 1000])
def test_decomposition_telescopes_to_the_monte_carlo_kl(dataset_size):
    mean, log_std, sample = posteriors()
    parts = decompose_kl(mean, log_std, sample, dataset_size)
    kl = Normal(mean, log_std.exp()).log_prob(sample) - Normal(0, 1).log_prob(sample)
    assert sum(parts).item() == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)


def test_decomposition_of_the_whole_data_set_is_exact():
    mean, log_std, sample = posteriors()
    parts = decompose_kl(mean, log_std, sample, dataset_size=6)
    table = Normal(mean, log_std.exp()).log_prob(sample[:, None]).exp()  # density of sample i under q(z|x_j)
    joint, marginals = table.prod(2).mean(1), table.mean(1)
    assert parts.total_correlation.item() == pytest.approx((joint / marginals.prod(1)).log().mean().item(), rel=1e-4)
    information = (torch.diagonal(table.prod(2)) / joint).log().mean().item()
    assert parts.mutual_information.item() == pytest.approx(information, rel=1e-4)


def test_silenced_latents_do_not_count():
    mean, log_std, sample = posteriors()
    mask = torch.tensor([1.0, 0.0, 1.0])
    masked = decompose_kl(mean, log_std, sample, 50, mask)
    without = decompose_kl(mean[:, ::2], log_std[:, ::2], sample[:, ::2], 50)
    for part, expected in zip(masked, without, strict=True):
        assert part.item() == pytest.approx(expected.item(), abs=1e-5)


def test_decomposition_takes_many_models_at_once():
    stacked = [torch.stack([part, 2 * part]) for part in posteriors()]
    both = decompose_kl(*stacked, dataset_size=40)
    second = decompose_kl(*(part[1] for part in stacked), dataset_size=40)
    assert both.total_correlation[1].item() == pytest.approx(second.total_correlation.item(), rel=1e-5)


def test_total_correlation_objective_at_beta_one_is_the_bound():
    model = VAE((1, 8, 8), latent_dim=3, network="kingma", width=16)
    terms = model(torch.rand(16, 1, 8, 8))
    plain = bound(terms, Objective(beta=1.0), 1.0, 100).loss
    penalised = bound(terms, Objective(kind="total_correlation", beta=1.0), 1.0, 100).loss
    torch.testing.assert_close(plain, penalised)


def test_total_correlation_needs_flat_latents():
    with pytest.raises(InputError, match="flat latents"):
        bound(TERMS, Objective(kind="total_correlation"), 0.0, 10)


@pytest.mark.parametrize("settings", [{"beta": -1.0}, {"beta": math.nan}, {"kind": "elbow"}, {"warmup": 2.0}])
def test_bad_settings(settings):
    with pytest.raises(InputError):
        Objective(**settings)

"""The objective's parts against hand-computed values and brute force."""

import math

import pytest
import torch
from torch.distributions import Normal

from vaestudy.errors import InputError
from vaestudy.models import VAE, Posterior, Terms
from vaestudy.models.vae import gaussian_kl
from vaestudy.training.objective import (
    Objective,
    Pressure,
    beta_norm,
    bound,
    capacity_cost,
    decompose_kl,
    total_correlation,
)

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


@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_total_correlation_and_its_gradient_made_by_hand(spread):
    mean, log_std, noise = torch.randn(3, 2, 9, 4, dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.float64)
    parts = [spread * mean, log_std, spread * mean + log_std.exp() * noise]
    parts = [(part * mask[:, None]).requires_grad_() for part in parts]
    scale = torch.tensor([1.0, -0.5], dtype=torch.float64)
    fast = total_correlation(*parts, 50, mask)
    plain = decompose_kl(*parts, 50, mask).total_correlation
    torch.testing.assert_close(fast, plain)
    for here, there in zip(
        torch.autograd.grad((scale * fast).sum(), parts), torch.autograd.grad((scale * plain).sum(), parts), strict=True
    ):
        torch.testing.assert_close(here, there)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_pressure_is_the_bound_of_every_model(progress):
    latents, shared = (3, 5, 5, 2, 5), {"warmup": 0.5, "gamma": 7.0, "ramp": 0.4}
    objectives = [
        Objective(beta=4.0, **shared),
        Objective(kind="total_correlation", beta=6.0, **shared),
        Objective(kind="capacity", beta=9.0, capacity=3.0, **shared),
        Objective(kind="total_correlation", beta=0.5, **shared),
        Objective(beta=0.0, **shared),
    ]
    mean, log_std, sample = torch.randn(3, 5, 8, 5) * (torch.arange(5) < torch.tensor(latents)[:, None, None])
    pressure = Pressure(objectives, latents, 100, torch.device("cpu"))
    pressure.set(progress)
    kl = gaussian_kl(mean, log_std).sum(2)
    cost = pressure.cost(kl.mean(1), Posterior(mean, log_std, sample))
    for k, (objective, d) in enumerate(zip(objectives, latents, strict=True)):
        own = Posterior(mean[k, :, :d], log_std[k, :, :d], sample[k, :, :d])
        parts = bound(Terms(torch.zeros(8), kl[k][None], own), objective, progress, 100)
        torch.testing.assert_close(cost[k], parts.loss)

"""The objective's parts against hand-computed values and brute force."""

import math

import pytest
import torch
from torch.distributions import Normal

from vaestudy.errors import InputError
from vaestudy.training.objective import (
    Coefficients,
    Objective,
    balance_sizes,
    balance_weights,
    coefficients,
    elbo_loss,
    total_correlation,
)

NLL, KL = torch.tensor(15.0), torch.tensor([2.0, 0.5])


def loss(objective, progress=1.0, excess=0.0):
    """The loss of one model at NLL and KL, nats per image."""
    charged = Coefficients(*(part[0] for part in coefficients([objective], progress, len(KL))))
    terms = elbo_loss(NLL, KL, charged, excess)
    assert torch.equal(terms.nll, NLL)
    assert torch.equal(terms.kl, KL)
    return terms.loss.item()


def test_beta_weighs_the_sum_of_all_groups():
    assert loss(Objective(beta=4.0), 0.3) == pytest.approx(15 + 4 * 2.5)
    assert loss(Objective(beta=0.0)) == pytest.approx(15)


def test_warmup_is_linear():
    objective = Objective(beta=2.0, warmup=0.5)
    assert [objective.kl_weight(p) for p in (0.0, 0.25, 0.5, 0.9)] == [0, 0.5, 1, 1]
    assert loss(objective, 0.25) == pytest.approx(15 + 2.5)
    late = Objective(warmup=0.3, min_kl_weight=1e-4)
    weights = [late.kl_weight(p) for p in (0.0, 1e-4, 0.1501, 0.3001)]
    assert weights == pytest.approx([1e-4, 1e-4, 0.5, 1.0])


def test_capacity_rises_linearly():
    objective = Objective(kind="capacity", capacity=25.0, gamma=10.0, capacity_ramp=0.8, beta=99.0)
    assert [float(coefficients([objective], p).capacity) for p in (0.0, 0.4, 0.8, 1.0)] == [0, 12.5, 25, 25]
    assert loss(objective) == pytest.approx(15 + 10 * 22.5)
    assert loss(objective, 0.0) == pytest.approx(15 + 10 * 2.5)


def test_top_groups_come_first_and_all_end_at_beta():
    objective = Objective(warmup=0.5, group_kl_anneal=4.0)
    assert objective.group_weights(0.25, 3) == pytest.approx([0.5, 0.5**0.5 * 4**0.25, 2.0])
    assert objective.group_weights(0.0, 3) == pytest.approx([0, 0, 4])
    assert objective.group_weights(0.5, 3) == pytest.approx([1, 1, 1])
    assert objective.group_weights(0.25, 1) == pytest.approx([0.5])


def test_the_spectral_weight_falls_log_linearly_along_with_the_warmup():
    objective = Objective(warmup=0.5, spectral=0.01, spectral_start=1.0)
    assert [objective.spectral_weight(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1, 0.1, 0.01, 0.01])
    assert Objective(warmup=0.5, spectral=0.01).spectral_weight(0.0) == 0.01


def test_balancing_charges_a_group_in_proportion_to_its_kl_for_its_size():
    """Two groups of 4x4 share the area that one of 8x8 has: sizes 16/2, 16/2 and 64/1, divided by the smallest."""
    sizes = balance_sizes([(2, 4, 4), (2, 4, 4), (2, 8, 8)])
    assert sizes.tolist() == [1, 1, 8]
    kl = torch.tensor([[0.5, 1.5], [3.0, 3.0], [8.0, 24.0]], requires_grad=True)
    weights = balance_weights(kl, sizes)
    shares = [1.01, 3.01, 16.01 / 8]
    assert weights.tolist() == pytest.approx([3 * share / sum(shares) for share in shares])
    assert not weights.requires_grad


def posteriors(n=6, d=3, models=()):
    mean, log_std = torch.randn(*models, n, d, dtype=torch.float64), 0.3 * torch.randn(*models, n, d).double()
    return mean, log_std, mean + log_std.exp() * torch.randn(*models, n, d)


def by_autograd(mean, log_std, sample, dataset_size):
    """Chen et al. (2018), App. C.2: log of the stratified mean density of each sample, jointly and latent by latent."""
    n = mean.shape[-2]
    weight = torch.full((n, n), (dataset_size - 1) / (dataset_size * (n - 1)), dtype=mean.dtype)
    weight = weight.fill_diagonal_(1 / dataset_size).log()[..., None]
    table = Normal(mean[..., None, :, :], log_std.exp()[..., None, :, :]).log_prob(sample[..., :, None, :])
    joint = (table.sum(-1) + weight[..., 0]).logsumexp(-1)
    return (joint - (table + weight).logsumexp(-2).sum(-1)).mean(-1)


def test_total_correlation_of_the_whole_data_set_is_exact():
    mean, log_std, sample = posteriors()
    table = Normal(mean, log_std.exp()).log_prob(sample[:, None]).exp()  # density of sample i under q(z|x_j)
    expected = (table.prod(2).mean(1) / table.mean(1).prod(1)).log().mean()
    assert total_correlation(mean, log_std, sample, 6).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("spread", [1.0, 40.0])
@pytest.mark.parametrize("dataset_size", [9, 50])
def test_total_correlation_and_its_gradient_made_by_hand(spread, dataset_size):
    mean, log_std, sample = posteriors(9, 4, models=(2,))
    parts = [(spread * mean).requires_grad_(), log_std.requires_grad_(), (spread * sample).requires_grad_()]
    scale = torch.tensor([1.0, -0.5], dtype=torch.float64)
    fast, plain = (function(*parts, dataset_size) for function in (total_correlation, by_autograd))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    for here, there in zip(
        torch.autograd.grad((scale * fast).sum(), parts), torch.autograd.grad((scale * plain).sum(), parts), strict=True
    ):
        torch.testing.assert_close(here, there)


def test_one_latent_has_no_total_correlation():
    assert total_correlation(*posteriors(d=1), 100).item() == pytest.approx(0, abs=1e-9)


def test_total_correlation_is_charged_beyond_the_bound():
    objective = Objective(kind="total_correlation", beta=6.0, warmup=0.5)
    assert loss(objective, 1.0, excess=0.7) == pytest.approx(15 + 6 * 2.5 - 5 * 2.5 + 5 * 0.7)
    assert loss(objective, 0.25, excess=0.7) == pytest.approx(15 + 0.5 * (2.5 + 5 * 0.7))
    assert loss(Objective(kind="total_correlation"), excess=0.7) == pytest.approx(15 + 2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "elbow"),
        ("beta", -1.0),
        ("warmup", 2.0),
        ("capacity", math.nan),
        ("capacity_ramp", 0.0),
        ("gamma", -1.0),
        ("spectral", -0.1),
        ("spectral_start", 1.0),  # without `spectral`, to which it falls
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=f"{name} "):
        Objective(**{name: value})

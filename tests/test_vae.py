"""The VAE against closed forms: KL table, both estimators, the importance-weighted ladder on a linear Gaussian."""

import itertools
import math

import pytest
import torch

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.models.vae import gaussian_kl


class LinearGaussian:
    """x = W z + noise of a fixed standard deviation: the case in which everything is known in closed form."""

    def __init__(self, std: float):
        self.std = std

    def parameters_per_pixel(self, channels):
        return channels

    def log_prob(self, params, x):
        normal = torch.distributions.Normal(params.double(), self.std)
        return normal.log_prob(x.double()).flatten(1).sum(1)

    def mean(self, params):
        return params


@pytest.mark.parametrize(
    ("mean", "variance", "kl"),
    [(0, 1, 0), (1, 1, 0.5), (0, math.e, 0.359141), (0, 0.25, 0.318147), (2, 0.01, 3.807585), (0.5, 2, 0.278426)],
)
def test_kl_of_one_gaussian(mean, variance, kl):
    mean, log_std = torch.tensor([[float(mean)]]), torch.tensor([[0.5 * math.log(variance)]])
    assert gaussian_kl(mean, log_std).item() == pytest.approx(kl, abs=2e-6)


@pytest.mark.parametrize(
    ("shape", "settings", "count"),
    [
        ((1, 64, 64), {"network": "higgins"}, 14_196_516),
        ((1, 64, 64), {"network": "conv"}, 764_245),
        ((1, 64, 64), {"network": "conv", "latent_dim": 32}, 781_185),
        ((3, 64, 64), {"network": "conv", "latent_dim": 32}, 783_235),
        ((1, 64, 64), {"network": "burgess"}, 502_005),
        ((1, 28, 28), {"network": "kingma", "latent_dim": 20}, 815_824),
    ],
)
def test_parameter_counts_of_the_papers(shape, settings, count):
    assert sum(p.numel() for p in VAE(shape, **settings).parameters()) == count


def test_both_estimators_agree_in_expectation():
    model = VAE((1, 8, 8), latent_dim=3, network="kingma", width=16)
    x = torch.rand(4, 1, 8, 8)
    difference = []
    for _ in range(400):
        seed = torch.seed()
        terms = model(x, samples=8)
        torch.manual_seed(seed)
        difference.append(terms.nll + terms.kl[0] + model.log_weights(x, 8).mean(1))
    difference = torch.stack(difference)
    standard_error = difference.std(0) / math.sqrt(len(difference))
    assert (difference.mean(0).abs() < 4 * standard_error).all()
    assert (difference.std(0) > 0).all()


def linear_model(exact: bool) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """A linear Gaussian VAE, images from it, and their exact log p(x)."""
    generator = torch.Generator().manual_seed(1)
    model, std = VAE((1, 2, 2), latent_dim=2, network="linear"), 0.5
    model.likelihood = LinearGaussian(std)
    weight = torch.randn(4, 2, generator=generator)
    model.decoder[0].weight.data, model.decoder[0].bias.data = weight, torch.zeros(4)
    # Orthogonal columns make the exact posterior a diagonal Gaussian, which the encoder can express.
    weight[:, 1] -= weight[:, 0] * (weight[:, 0] @ weight[:, 1]) / weight[:, 0].square().sum()
    precision = 1 + weight.square().sum(0) / std**2
    model.encoder[1].weight.data[:2] = (weight / std**2 / precision).T
    model.encoder[1].weight.data[2:] = 0
    model.encoder[1].bias.data = torch.cat([torch.zeros(2), -precision.log() + (0 if exact else 0.8)])
    x = torch.randn(6, 4, generator=generator)
    covariance = weight @ weight.T + std**2 * torch.eye(4)
    log_p = torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)
    return model, x.reshape(6, 1, 2, 2), log_p


def test_exact_posterior_has_no_variance_and_gives_the_evidence():
    model, x, log_p = linear_model(exact=True)
    weights = model.log_weights(x, samples=50).float()
    torch.testing.assert_close(weights, log_p[:, None].expand(-1, 50), atol=2e-5, rtol=1e-5)


def test_importance_weighted_ladder_climbs_to_the_evidence():
    model, x, log_p = linear_model(exact=False)
    weights = model.log_weights(x, samples=60_000).float()
    ladder = []
    for k in (1, 4, 16, 64, 60_000):
        blocks = weights[:, : 60_000 // k * k].unflatten(1, (-1, k))
        ladder.append((torch.logsumexp(blocks, 2) - math.log(k)).mean(1))
    for lower, higher in itertools.pairwise(ladder):
        assert (higher > lower).all()
    torch.testing.assert_close(ladder[-1], log_p, atol=0.02, rtol=0)
    elbo = torch.stack([-(t.nll.float() + t.kl[0]) for t in (model(x, samples=1000) for _ in range(60))]).mean(0)
    torch.testing.assert_close(ladder[0], elbo, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("network", "likelihood"), [("mlp", "mixture"), ("conv", "bernoulli"), ("burgess", "gaussian")]
)
def test_every_network_and_likelihood_keeps_the_contract(network, likelihood):
    model = VAE((3, 16, 16), latent_dim=5, network=network, width=16, likelihood=likelihood, mixtures=2)
    x = torch.randint(0, 256, (4, 3, 16, 16)) / 255
    terms = model(x)
    assert terms.nll.shape == (4,)
    assert terms.kl.shape == (1, 4)
    terms.nll.sum().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert [z.shape for z in model.encode(x)] == [(4, 5)]
    for images in (model.decode(model.encode(x)), model.sample(4, temperature=0.7)):
        assert images.shape == (4, 3, 16, 16)
        assert images.min() >= 0
        assert images.max() <= 1
    torch.testing.assert_close(model.kl_per_latent(x)[0].sum(1), terms.kl[0])
    assert model.log_weights(x, 3).shape == (4, 3)


def test_initial_weights_depend_on_the_seed_alone():
    first = VAE((1, 8, 8), seed=3)
    torch.rand(7)
    again, other = VAE((1, 8, 8), seed=3), VAE((1, 8, 8), seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.encoder[1].weight, other.encoder[1].weight)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"network": "mpl"}, "'mpl'"),
        ({"likelihood": "poisson"}, "'poisson'"),
        ({"network": "conv"}, "20x20"),
    ],
)
def test_bad_settings_are_named_in_one_line(settings, word):
    with pytest.raises(InputError, match=word) as caught:
        VAE((1, 20, 20), **settings)
    assert "\n" not in str(caught.value)

"""The gradient estimators against automatic differentiation and against each other."""

import torch
from torch.distributions import Normal

from vaestudy.data import ImageSet
from vaestudy.experiments import vae
from vaestudy.experiments.vae_parts import gradient_draws, spread
from vaestudy.models import VAE
from vaestudy.training import Run


def setup():
    model = VAE((1, 4, 4), latent_dim=2, network="kingma", width=8)
    return model, torch.rand(3, 1, 4, 4)


def by_autograd(model, x, noise, analytic):
    mean, log_std = (part.detach().requires_grad_() for part in model.posterior(x))
    z = mean + log_std.exp() * noise
    bound = model.likelihood.log_prob(model.decoder(z), x)
    if analytic:
        bound = bound - 0.5 * (mean.square() + torch.exp(2 * log_std) - 1 - 2 * log_std).sum(1)
    else:
        bound = bound + (Normal(0, 1).log_prob(z) - Normal(mean, log_std.exp()).log_prob(z)).sum(1)
    return torch.cat(torch.autograd.grad(bound.sum(), (mean, log_std)), dim=1)


def test_reparameterised_gradients_equal_autograd():
    model, x = setup()
    torch.manual_seed(3)
    draws = gradient_draws(model, x, draws=1)
    torch.manual_seed(3)
    noise = torch.randn(1, 3, 2)[0]
    torch.testing.assert_close(draws["estimator B"][0], by_autograd(model, x, noise, analytic=True))
    torch.testing.assert_close(draws["estimator A"][0], by_autograd(model, x, noise, analytic=False))


def test_all_have_the_same_mean():
    model, x = setup()
    draws = gradient_draws(model, x, draws=60_000)
    means = {name: d.mean(0) for name, d in draws.items()}
    errors = {name: d.std(0) / len(d) ** 0.5 for name, d in draws.items()}
    for name in ("estimator A", "score function", "score function, baseline"):
        distance = (means[name] - means["estimator B"]).abs()
        assert (distance < 5 * (errors[name] ** 2 + errors["estimator B"] ** 2).sqrt()).all()


def test_a_baseline_takes_what_all_draws_share_and_adds_nothing():
    """For a gain that is the same for every draw nothing is left; the mean of nine others blurs 10/9 at most."""
    model, x = setup()
    draws = gradient_draws(model, x, draws=20_000)
    plain, left_out = (spread(draws[name], 10) for name in ("score function", "score function, baseline"))
    assert left_out < plain / 3


def test_spread_of_independent_draws_falls_as_one_over_l():
    draws = torch.randn(20_000, 2, 3)
    assert abs(spread(draws, 1) - 3) < 0.1
    assert abs(spread(draws, 10) - 0.3) < 0.03


def test_the_noise_follows_from_the_seed_and_nobody_else_s_is_touched():
    model, x = setup()
    run, images = Run("", model), ImageSet.from_array(x)
    before, weights = torch.get_rng_state(), [id(part) for part in model.parameters()]
    found = vae.gradient_variances(run, images, seed=3, draws=200)
    assert torch.equal(torch.get_rng_state(), before)
    assert [id(part) for part in model.parameters()] == weights
    torch.rand(7)
    assert vae.gradient_variances(run, images, seed=3, draws=200).equals(found)
    assert not vae.gradient_variances(run, images, seed=4, draws=200).equals(found)
    assert found.index.tolist() == [1, 10, 100]
    assert found.isna().sum().sum() == 1
    assert not found["score function, baseline"].notna()[1]

"""The protocol of a model: what the study's own models answer, and what is said of one that lacks some of it."""

import torch
from scipy import stats
from small_training import Own

from vaestudy.models import NVAE, VAE, Model, NVAEConfig

TINY = NVAEConfig((1, 8, 8), likelihood="bernoulli", channels=4, latents=2, groups=(1, 2), flows=1)


def test_a_model_that_trains_and_no_more_is_told_from_one_that_answers_all():
    assert isinstance(VAE((1, 8, 8), width=8), Model)
    assert isinstance(NVAE(TINY), Model)
    assert not isinstance(Own(), Model)


def test_draws_of_a_vae_are_those_of_its_posterior():
    model = VAE((1, 8, 8), latent_dim=3, width=8)
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        (draws,), (mean, log_std) = model.encode(x, draw=1500), model.posterior(x)
        draws = draws.unflatten(0, (2, 1500)).swapaxes(0, 1)
        standardised = ((draws - mean) / log_std.exp()).flatten()
    assert stats.kstest(standardised.numpy(), "norm").pvalue > 1e-3
    assert torch.equal(model.encode(x)[0], mean)


def test_draws_of_an_nvae_are_what_the_bound_decodes():
    # With flows: a code is what comes out of them. Each group's draw is given those above it, not their means.
    model, x = NVAE(TINY).eval(), torch.rand(3, 1, 8, 8).round()
    torch.manual_seed(5)
    latents = model.encode(x, draw=1)
    torch.manual_seed(5)
    terms = model(x)
    nll = -(x * model.decode(latents).log() + (1 - x) * (1 - model.decode(latents)).log()).sum((1, 2, 3))
    assert torch.allclose(nll, terms.nll, rtol=1e-4)
    assert [z.shape for z in latents] == [z.shape for z in model.encode(x)]
    assert all((z - mean).std() > 0.1 for z, mean in zip(latents, model.encode(x), strict=True))
    torch.manual_seed(5)
    repeated = model.encode(x.repeat_interleave(4, 0), draw=1)
    torch.manual_seed(5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(model.encode(x, draw=4), repeated, strict=True))

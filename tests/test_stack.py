"""The stack of VAEs: every model in it computes what it computes alone."""

import math

import pytest
import torch

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.models.likelihoods import Bernoulli
from vaestudy.models.stack import Stack

SIZES = (3, 5, 5)


def family(network="mlp", shape=(1, 16, 16), sizes=SIZES, **settings):
    return [VAE(shape, latent_dim=d, network=network, width=8, seed=i, **settings) for i, d in enumerate(sizes)]


@pytest.mark.parametrize(
    ("network", "shape"), [("linear", (1, 4, 6)), ("mlp", (3, 8, 8)), ("conv", (1, 16, 16)), ("burgess", (3, 32, 32))]
)
@pytest.mark.parametrize("shares", [None, [2, 1], [1, 1, 1]])
def test_every_model_computes_what_it_computes_alone(network, shape, shares):
    models = family(network, shape)
    stack = Stack(models, shares)
    owner = [batch for batch, share in enumerate(stack.shares) for _ in range(share)]
    x = torch.rand(len(stack.shares), 6, *shape)
    mean, log_std = stack.posterior(x)
    assert mean.shape == (3, 6, 5)
    params = stack.decoder(mean)
    nll = stack.nll(params, x)
    for k, model in enumerate(models):
        own, d = x[owner[k]], SIZES[k]
        expected_mean, expected_log_std = model.posterior(own)
        torch.testing.assert_close(mean[k, :, :d], expected_mean)
        torch.testing.assert_close(log_std[k, :, :d], expected_log_std)
        assert not mean[k, :, d:].any()
        assert not log_std[k, :, d:].any()
        expected = model.decoder(expected_mean)
        torch.testing.assert_close(params[k], expected)
        torch.testing.assert_close(nll[k], -model.likelihood.log_prob(expected, own).mean())


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_unstacking_gives_every_model_its_weights_back(network):
    models = family(network)
    stack = Stack(models)
    expected = [{name: 2 * weight for name, weight in model.state_dict().items()} for model in models]
    with torch.no_grad():
        for weight in stack.weights:
            weight.mul_(2)
    stack.unstack()
    for model, weights in zip(models, expected, strict=True):
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "mixture"])
def test_likelihoods_of_every_kind(likelihood):
    models = family(likelihood=likelihood)
    x = torch.randint(0, 256, (2, 6, 1, 16, 16)) / 255
    stack = Stack(models, [1, 2])
    params = stack.decoder(torch.randn(3, 6, 5)).detach()
    nll = stack.nll(params, x)
    for k, model in enumerate(models):
        torch.testing.assert_close(nll[k], -model.likelihood.log_prob(params[k], x[min(k, 1)]).mean())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_the_bernoulli_gradient_made_by_hand_is_autograds(dtype, tolerance):
    stack = Stack(family(), [2, 1])
    x = torch.rand(2, 7, 1, 16, 16)
    logits = (20 * torch.randn(3, 7, 1, 16, 16)).to(dtype).requires_grad_()
    scale = torch.tensor([1.0, 2.0, 0.5])
    nll = stack.nll(logits, x)
    (fast,) = torch.autograd.grad((scale * nll).sum(), logits)
    seen = x[[0, 0, 1]]
    plain = -Bernoulli().log_prob(logits.flatten(0, 1), seen.flatten(0, 1)).unflatten(0, (3, 7)).mean(1)
    (expected,) = torch.autograd.grad((scale * plain).sum(), logits)
    torch.testing.assert_close(nll, plain)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, expected, rtol=tolerance, atol=1e-8)


def test_the_bernoulli_loss_at_one_half_and_at_certainty():
    stack = Stack(family())
    x = torch.ones(1, 2, 1, 16, 16)
    levels = torch.tensor([0.0, 200.0, -200.0])
    nll = stack.nll(levels[:, None, None, None, None].expand(3, 2, 1, 16, 16), x)
    torch.testing.assert_close(nll, torch.tensor([256 * math.log(2), 0.0, 256 * 200.0]))


def test_models_of_two_architectures_cannot_be_stacked():
    with pytest.raises(InputError, match="latent_dim and seed alone"):
        Stack([VAE((1, 8, 8), width=8), VAE((1, 8, 8), width=16)])
    with pytest.raises(InputError, match="0 kinds"):
        Stack([])

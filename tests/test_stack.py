"""The stack of VAEs: every model in it computes what it computes alone."""

import pytest
import torch

from vaestudy.errors import InputError
from vaestudy.models import VAE
from vaestudy.models.stack import Stack


def family(network="mlp", shape=(1, 16, 16), **settings):
    return [VAE(shape, latent_dim=5, network=network, width=8, seed=seed, **settings) for seed in range(3)]


@pytest.mark.parametrize(
    ("network", "shape", "likelihood"),
    [
        ("linear", (1, 4, 6), "bernoulli"),
        ("kingma", (1, 4, 6), "gaussian"),
        ("mlp", (3, 8, 8), "mixture"),
        ("conv", (1, 16, 16), "bernoulli"),
        ("burgess", (3, 32, 32), "gaussian"),
    ],
)
def test_every_model_computes_what_it_computes_alone(network, shape, likelihood):
    models = family(network, shape, likelihood=likelihood)
    stack = Stack(models)
    assert len(stack) == 3
    x = torch.randint(0, 256, (3, 6, *shape)) / 255
    mean, log_std = stack.posterior(x)
    params = stack.decoder(mean)
    log_prob = stack.log_prob(params, x)
    log_prob.sum().backward()
    for k, model in enumerate(models):
        expected_mean, expected_log_std = model.posterior(x[k])
        torch.testing.assert_close(mean[k], expected_mean)
        torch.testing.assert_close(log_std[k], expected_log_std)
        expected = model.decoder(expected_mean)
        torch.testing.assert_close(params[k], expected, rtol=1e-5, atol=1e-5)
        expected = model.likelihood.log_prob(expected, x[k])
        torch.testing.assert_close(log_prob[k], expected)
        expected.sum().backward()
    with torch.no_grad():  # gradients, seen through the weights that they would move
        for weight in stack.weights:
            weight.copy_(weight.grad)
    gradients = [[parameter.grad for parameter in model.parameters()] for model in models]
    for state, model, expected in zip(stack.state_dicts(), models, gradients, strict=True):
        assert list(state) == list(model.state_dict())
        for weight, gradient in zip(state.values(), expected, strict=True):
            torch.testing.assert_close(weight, gradient, rtol=1e-4, atol=1e-3)


def test_models_of_two_architectures_cannot_be_stacked():
    for other in ({"width": 16}, {"width": 8, "latent_dim": 9}, {"width": 8, "likelihood": "gaussian"}):
        with pytest.raises(InputError, match="seed alone"):
            Stack([VAE((1, 8, 8), width=8), VAE((1, 8, 8), **other)])
    with pytest.raises(InputError, match="seed alone"):
        Stack([])

import math

import pytest
import torch

from vaestudy.models.latents import Normal, normal, residual_normal

# prior mean, prior log-std, encoder mean, encoder log-std (all raw), then what they stand for and their KL.
KNOWN = [
    (0, 0, 1, 0, 0.9868766011, 1.01, 0, 1.01, 0.4773676237),
    (0, 0, 0, -1, 0, 0.3827390876, 0, 1.01, 0.5421534827),
    (1, 0.5, 0.3, -0.7, 1.2714776631, 0.8288180332, 0.9868766011, 1.6559866195, 0.3321690243),
    (0, 0, 5, -5, 3.8079707798, 0.0321931681, 0, 1.01, 10.0539201078),
    (4, -3, 2, 1, 4.1682730351, 0.1596067923, 3.3201838513, 0.0782042885, 59.671214006),
]


def raw(mean: float, scale: float) -> torch.Tensor:
    return torch.tensor([mean, scale], dtype=torch.float64).view(1, 2, 1, 1)


@pytest.mark.parametrize("row", KNOWN)
def test_known_values(row):
    *inputs, mean_q, std_q, mean_p, std_p, kl = row
    prior, posterior = normal(raw(*inputs[:2])), residual_normal(raw(*inputs[:2]), raw(*inputs[2:]))
    found = [posterior.mean, posterior.std, prior.mean, prior.std, posterior.kl(prior)]
    assert [value.item() for value in found] == pytest.approx([mean_q, std_q, mean_p, std_p, kl], abs=1e-9)


def test_no_output_leaves_the_bounds():
    extreme = normal(1e4 * torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(1, 4, 1, 1))
    assert extreme.mean.abs().max() <= 5
    assert extreme.std.flatten().tolist() == pytest.approx([148.423159, 0.016737947], rel=1e-6)


def test_kl_is_the_mean_of_the_log_ratio_under_q():
    prior = Normal(torch.full((200_000,), 0.3), torch.full((200_000,), 0.8))
    posterior = Normal(torch.full((200_000,), -0.4), torch.full((200_000,), 0.5))
    z = posterior.sample()
    ratio = posterior.log_prob(z) - prior.log_prob(z)
    standard_error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - posterior.kl(prior)[0]) < 4 * standard_error


def test_temperature_scales_the_spread():
    prior = Normal(torch.full((50_000,), 2.0), torch.full((50_000,), 0.5))
    assert prior.sample(0.6).std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(prior.sample(0.0), prior.mean)


def test_half_precision_is_left_behind():
    assert normal(torch.randn(1, 4, 2, 2).bfloat16()).std.dtype == torch.float32

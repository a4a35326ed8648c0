"""One step: what it costs beside a count by hand, and what it leaves out."""

import copy

import pytest
import torch
from small_training import REGULARISED, Poisoned, assert_same, deep, dense, noise, small

from vaestudy.errors import InputError
from vaestudy.models.layers import SpectralPenalty
from vaestudy.training import Job, Objective
from vaestudy.training.config import seed_step
from vaestudy.training.skips import GradientSkips
from vaestudy.training.steps import ModelStep
from vaestudy.training.trainer import check

CPU = torch.device("cpu")
ALL_AT_ONCE = {"images": 240, "ema": 0.9, "grad_skip_factor": 2.0, "flip": True}
STEPS = {
    "adam": lambda images: ModelStep(dense(), images, small(**ALL_AT_ONCE), CPU),
    "adagrad": lambda images: ModelStep(dense(), images, small(optimizer="adagrad", **ALL_AT_ONCE), CPU),
    "nvae": lambda images: ModelStep(
        deep(), images, small(optimizer="adamax", objective=REGULARISED, micro_batches=2, **ALL_AT_ONCE), CPU
    ),
}


@pytest.mark.parametrize(("first", "loaded"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize("name", STEPS)
def test_a_refused_step_changes_nothing(name, first, loaded):
    """Weights, statistics of batch norm, moments, counters and averages are those of before, to the last bit."""
    images = noise()
    step = STEPS[name](images)
    for number in range(first):
        step(number, 0.1)
    before = copy.deepcopy(step.state_dict())
    if loaded:
        step.load_state_dict(copy.deepcopy(before))
    step.images = Poisoned(images, range(10))
    step(first, 0.1)
    after = step.state_dict()
    assert step.skips.counts() == (1, 1)
    if first:
        assert_same(after["optimizer"], before["optimizer"])
    else:  # the first step makes the moments
        states = after["optimizer"]["state"].values()
        assert all(not value.any() for state in states for value in state.values())
    for part in ("model", "average"):
        assert_same(after[part], before[part])
    step.images = images
    step(first + 1, 0.1)
    assert step.skips.counts() == (1, 0)
    assert any(not torch.equal(weight, before["model"][name]) for name, weight in step.model.state_dict().items())
    assert all(value.isfinite().all() for part in ("model", "average") for value in step.state_dict()[part].values())


def test_a_refused_gradient_still_moves_the_running_mean():
    skips = GradientSkips(2.0, CPU)
    found = [skips.accepts(torch.tensor(norm)).item() for norm in (1.0, 1.9, 3.0, torch.inf, 1.0, torch.nan)]
    assert found == [True, True, False, False, True, False]
    mean = 0.98 * (0.98 * (0.98 * 1 + 0.02 * 1.9) + 0.02 * 3) + 0.02 * 1
    assert skips.mean.item() == pytest.approx(mean)
    assert skips.counts() == (3, 1)
    for _ in range(200):  # a lasting change of scale is followed
        skips.accepts(torch.tensor(50.0))
    assert skips.accepts(torch.tensor(50.0)).item()


def test_micro_batches_add_up_to_the_gradient_of_their_mean_cost():
    images, settings = noise(), small(micro_batches=4, objective=Objective(beta=2.0), learning_rate=1e-9)
    step = ModelStep(dense(), images, settings, CPU)
    (loss, nll, kl), model = step(0, 0.0)[0].tolist(), dense()
    parts = []
    for number, share in enumerate(step.sampler(0).tensor_split(4)):
        seed_step(settings.seed, 0, number)
        terms = model(images.batch(share))
        parts.append((terms.nll + 2 * terms.kl[0]).mean())
    torch.stack(parts).mean().backward()
    assert loss == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)
    assert loss == pytest.approx(nll + 2 * kl, rel=1e-5)
    for mine, theirs in zip(step.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_the_spectral_penalty_is_charged_by_its_weight():
    objective = Objective(warmup=0.5, spectral=0.01, spectral_start=1.0)
    step = ModelStep(deep(), noise(), small(objective=objective, learning_rate=1e-9), CPU)
    loss, nll, *kl = step(0, 0.25)[0].tolist()  # half of the KL is charged, and λ is midway on its logarithmic way
    assert loss == pytest.approx(nll + 0.5 * sum(kl) + 0.1 * SpectralPenalty(deep())().item(), rel=1e-4)


def test_more_noise_samples_cost_the_mean_of_what_each_costs():
    images, settings = noise(), small(samples=4)
    model = dense()
    step = ModelStep(model, images, settings, CPU)
    with torch.no_grad():
        step.feed(0, 0, 1.0)
        seed_step(settings.seed, 0, 0)
        cost = step.cost()
        x = images.batch(step.sampler(0))
        seed_step(settings.seed, 0, 0)
        mean, log_std = model.posterior(x)
        draws = [mean + log_std.exp() * z for z in torch.randn(4, *mean.shape)]
        each = [-model.likelihood.log_prob(model.decoder(z), x).mean() for z in draws]
    assert torch.allclose(cost.nll, torch.stack(each).mean())
    with pytest.raises(InputError, match="a NVAE"):
        check(Job(deep(), images, settings, "unused"))

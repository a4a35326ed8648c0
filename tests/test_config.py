"""What follows from the settings of a training: rates, order, flips and precision."""

import math
from types import SimpleNamespace

import pytest
import torch
from small_training import SHAPE, noise, small

from vaestudy.errors import InputError, check_bounds
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.training.config import EpochSampler, autocast, flipped, learning_rate

CPU = torch.device("cpu")


def test_each_epoch_shows_every_image_once():
    sampler = EpochSampler(103, 20, seed=4, device=CPU)
    epochs = [torch.cat([sampler(step) for step in range(5 * e, 5 * e + 5)]) for e in range(3)]
    assert all(len(epoch.unique()) == 100 for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    fresh = EpochSampler(103, 20, seed=4, device=CPU)
    assert torch.equal(fresh(12), sampler(12))
    assert not torch.equal(EpochSampler(103, 20, seed=5, device=CPU)(12), sampler(12))


def test_learning_rate_schedule():
    shape = small(learning_rate=2.0, lr_warmup=0.1, lr_decay_from=0.5, min_lr_ratio=0.1)
    rates = [learning_rate(shape, p) for p in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0, 1, 2, 2, 2 * (0.1 + 0.9 * 0.5), 0.2])


def test_half_of_the_images_are_mirrored_and_no_other_is_changed():
    x = noise(count=2000).batch(slice(None))
    y = flipped(x)
    mirrored = (y == x.flip(3)).flatten(1).all(1)
    assert ((y == x).flatten(1).all(1) ^ mirrored).all()
    assert abs(mirrored.float().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(2000)


@pytest.mark.parametrize("native", [True, False])
def test_on_a_cpu_bf16_is_chosen_where_it_pays(monkeypatch, native):
    monkeypatch.setattr("vaestudy.training.config.has_bf16_instructions", lambda: native)

    def chosen(model, precision="auto"):
        return autocast(small(precision=precision), model, CPU)._enabled

    dense, convolutional = VAE(SHAPE), VAE(SHAPE, network="conv")
    deep = NVAE(NVAEConfig(shape=SHAPE, channels=4, groups=(1, 1)))
    assert [chosen(model) for model in (dense, deep, convolutional)] == [native, native, False]
    assert chosen(convolutional, "bf16")
    assert not chosen(dense, "fp32")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", "sgd"),
        ("precision", "fp8"),
        ("images", 0),
        ("batch", 0),
        ("samples", 0),
        ("learning_rate", 0.0),
        ("micro_batches", 3),  # which do not divide the batch
        ("ema", 1.0),
        ("lr_warmup", -0.1),
        ("lr_decay_from", 1.5),
        ("min_lr_ratio", 2.0),
        ("grad_skip_factor", -1.0),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(InputError, match=name):
        small(**{name: value})


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [("[0, 1)", (0, 0.5), (-1e-9, 1, math.nan)), ("(0, inf)", (1e-9, 1e9), (0, math.inf)), ("[1, 16]", (1, 16), (17,))],
)
def test_numbers_within_and_beyond_an_interval(interval, inside, outside):
    for value in inside:
        check_bounds(SimpleNamespace(rate=value), rate=interval)
    for value in outside:
        with pytest.raises(InputError, match=f"rate .*not {value}"):
            check_bounds(SimpleNamespace(rate=value), rate=interval)

"""Numbers that blow up: steps left out, then back with half the learning rate, three times at most, then one line."""

import math

import numpy as np
import pytest
import torch
from small_training import (
    SHAPE,
    Interrupted,
    Unreadable,
    assert_same,
    assert_same_history,
    deep,
    dense,
    fit,
    noise,
    small,
)

from vaestudy.errors import InputError
from vaestudy.training import Run, checkpoint, loop

STEPS, RATE = 60, 1e-3
MAKE = {"vae": dense, "nvae": deep}


def rising(**changes):
    """A learning rate that rises from 0 to RATE, a line of the log every two steps, and all else that a step moves."""
    return small(**{"images": 20 * STEPS, "learning_rate": RATE, "lr_warmup": 1.0, "ema": 0.9, **changes})


class Hot:
    """Images that are not finite while the learning rate is above a limit."""

    def __init__(self, limit, value=math.nan):
        self.images, self.limit, self.value, self.rate, self.shape, self.checksum = noise(), limit, value, 0, SHAPE, ""

    def __len__(self):
        return len(self.images)

    def to(self, device):
        return self

    def batch(self, index):
        x = self.images.batch(index)
        return torch.full_like(x, self.value) if self.rate > self.limit else x

    def describe(self):
        return {"name": "hot", "limit": self.limit}


@pytest.fixture
def heat(monkeypatch):
    """Tells images, and hooks of gradients, the learning rate of each step; four skipped steps are many."""
    told = []
    monkeypatch.setattr(loop, "MOST_SKIPPED_IN_A_ROW", 4)
    plain = loop.set_learning_rate

    def tell(optimizer, rate):
        plain(optimizer, rate)
        for listener in told:
            listener.rate = rate

    monkeypatch.setattr(loop, "set_learning_rate", tell)
    return told.append


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (math.nan, {"optimizer": "adamw", "precision": "fp32"}),
        (math.inf, {"optimizer": "adamax", "precision": "bf16", "grad_skip_factor": 50.0}),
    ],
)
def test_it_goes_back_and_on_with_half_the_learning_rate(value, changes, name, heat, tmp_path, caplog):
    images, steps = Hot(0.59 * RATE, value), []
    heat(images)
    run = fit(MAKE[name](), images, rising(**changes), tmp_path, on_step=steps.append)
    # A state is kept every six steps; steps 37 to 40 were the first four to be left out.
    assert steps == [*range(1, 40), 36, *range(37, STEPS + 1)]
    log = run.history
    assert log["images_seen"].tolist() == list(range(40, 20 * STEPS + 1, 40))
    assert log["rollbacks"].tolist() == [0] * 18 + [1] * 12
    assert log["steps_skipped"].tolist() == [0] * 18 + [4] * 12
    done = (log["images_seen"] / 20 - 1) / STEPS
    np.testing.assert_allclose(log["learning_rate"], RATE * done * np.where(log["rollbacks"], 0.5, 1))
    assert np.isfinite(log["loss"]).all()
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    assert run.record["training"] | {"steps_skipped": 4, "rollbacks": 1} == run.record["training"]
    assert run.summary() | {"steps left out": 4, "times gone back": 1} == run.summary()
    assert "not finite after 800 images; back to 720, with half the learning rate" in caplog.text


def test_gradients_alone_that_are_not_finite(heat, tmp_path):
    """As where a loss is finite and its derivative is not."""
    model, images = deep(), noise()

    class Listener:
        rate = 0.0

    heat(Listener)
    weight = next(model.parameters())
    weight.register_hook(lambda grad: grad * math.inf if Listener.rate > 0.59 * RATE else grad)
    run = fit(model, images, rising(), tmp_path)
    assert run.record["training"]["rollbacks"] == 1
    assert all(value.isfinite().all() for value in run.model.state_dict().values())


@pytest.mark.parametrize(("name", "stop"), [("vae", 38), ("vae", 40), ("nvae", 41)])
def test_a_training_that_went_back_is_resumed_bit_for_bit(stop, name, heat, tmp_path):
    def train(folder, **options):
        images = Hot(0.59 * RATE)
        heat(images)
        return fit(MAKE[name](), images, rising(), folder, **options)

    whole, taken = train(tmp_path / "whole"), []

    def interrupt(step):
        taken.append(step)
        if len(taken) == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(tmp_path / "parts", checkpoint_seconds=0, on_step=interrupt)
    parts = train(tmp_path / "parts", on_step=taken.append)
    assert len(taken) == STEPS + 4
    assert_same(parts.model.state_dict(), whole.model.state_dict())
    assert_same_history(parts, whole)


def test_after_three_times_it_stops_with_the_reason_and_keeps_what_it_has(heat, tmp_path):
    images = Hot(0.05 * RATE)
    heat(images)
    with pytest.raises(InputError, match=r"diverged.*1/8.*lower learning_rate") as caught:
        fit(dense(), images, rising(), tmp_path)
    assert "\n" not in str(caught.value)
    run = Run(tmp_path, dense())
    assert not run.finished
    assert run.history["rollbacks"].max() == 3
    state = checkpoint.load(tmp_path)
    assert state["rollbacks"] == 3
    assert all(value.isfinite().all() for value in state["state"]["model"].values())
    with pytest.raises(InputError, match="diverged"):  # and so it stays
        fit(dense(), images, rising(), tmp_path)


def test_a_last_interval_without_any_finite_step_is_not_called_an_end(heat, tmp_path):
    """Fewer steps than would be many in a row, but the log would end with nothing."""
    images = Hot(57.5 / STEPS * RATE)
    heat(images)
    run = fit(dense(), images, rising(), tmp_path)
    assert run.history["images_seen"].iloc[-1] == 20 * STEPS
    assert run.record["training"]["rollbacks"] == 1


def test_single_images_that_are_not_finite_cost_their_steps_alone(tmp_path):
    run = fit(deep(), Unreadable(noise(), 7), rising(), tmp_path)
    assert run.record["training"] | {"steps_skipped": 6, "rollbacks": 0} == run.record["training"]

"""Gradients as one recording: a replay trains what ordinary steps do, and a refused recording is told in one line.

A CUDA graph is stood in for by a tape of operations. Like it, the tape holds tensors by their places and runs no line
of Python's again: what the host would have to decide at each step fails here as it would there.
"""

import logging
from dataclasses import replace

import pytest
import torch
from gpu_recipes import MAKERS, STEPS, bytes_of_noise
from small_training import assert_same
from torch.utils._python_dispatch import TorchDispatchMode

from vaestudy.models import VAE, Terms
from vaestudy.training import capture
from vaestudy.training.capture import WARM_UP, Captured
from vaestudy.training.steps import ModelStep

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Tape(TorchDispatchMode):
    """Operations in the order in which they ran, each with the tensors that it read and wrote."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.operations:
            new = func(*args, **kwargs)
            for place, value in zip(*(torch.utils._pytree.tree_leaves(part) for part in (out, new)), strict=True):
                if torch.is_tensor(place) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)


def taped(step):
    """Record as CUDA does: nothing that the work changes is changed yet."""

    def record(work):
        model = getattr(step, "model", None)
        held = [] if model is None else [*model.buffers(), *(step.penalty.buffers() if step.penalty else ())]
        held += [step.totals, *(p.grad for p in getattr(step, "parameters", ()) if p.grad is not None)]
        before, noise = [tensor.clone() for tensor in held], torch.get_rng_state()
        with Tape() as tape:
            work()
        torch.set_rng_state(noise)
        with torch.no_grad():
            for tensor, value in zip(held, before, strict=True):
                tensor.copy_(value)
        return tape.replay

    return record


def train(step):
    return torch.stack([step(number, number / STEPS).clone() for number in range(STEPS)])


@pytest.mark.parametrize(("name", "parts"), [("vae", 1), ("vae", 2), ("sweep", 1), ("nvae", 2)])
def test_replayed_steps_are_ordinary_ones(name, parts, monkeypatch):
    """Over epochs, with flips, warm-up, an annealed penalty, and after balancing has ended."""
    plain, step = (MAKERS[name]("cpu", micro_batches=parts) for _ in range(2))
    monkeypatch.setattr(capture, "cuda_graph", taped(step))
    step.gradients.allowed = True
    expected, found = train(plain), train(step)
    assert step.gradients.replay is not None
    assert torch.equal(found, expected)
    assert_same(step.state_dict(), plain.state_dict())


def test_a_tape_repeats_what_python_has_decided():
    """What the stand-in is for: a number of Python's is frozen into it."""
    numbers, out = iter(range(10)), torch.zeros(())

    def work():
        out.fill_(next(numbers))

    with Tape() as tape:
        work()
    tape.replay()
    assert out.item() == 0
    work()
    assert out.item() == 1


def test_a_refused_recording_goes_on_eagerly_with_one_line(caplog, monkeypatch):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    calls = []
    monkeypatch.setattr(capture, "cuda_graph", refuse)
    captured = Captured(lambda: calls.append(1), True)
    with caplog.at_level(logging.WARNING):
        for _ in range(WARM_UP + 3):
            captured()
    assert len(calls) == WARM_UP + 3
    assert not captured.fixed
    assert [record.getMessage().count("\n") for record in caplog.records] == [0]
    assert "not permitted" in caplog.text


class Foreign(torch.nn.Module):
    """A model of somebody else's, which may do as it likes on the host."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return Terms((x - self.shift).square().sum((1, 2, 3)), torch.zeros(1, len(x)))


def plain_vae():
    return VAE((1, 8, 8))


@pytest.mark.parametrize(
    ("make", "parts", "static"), [(Foreign, 1, False), (plain_vae, 1, True), (plain_vae, 8, False)]
)
def test_models_that_say_so_are_recorded_in_equal_parts(make, parts, static):
    images, training = bytes_of_noise((1, 8, 8), count=7), MAKERS["vae"]("cpu").training
    step = ModelStep(make(), images, replace(training, micro_batches=parts), torch.device("cpu"))
    assert step.static is static
    assert not step.gradients.allowed  # on a CPU a launch costs nothing


@pytest.mark.cuda
@CUDA
@pytest.mark.parametrize("name", MAKERS)
def test_a_cuda_graph_trains_what_ordinary_steps_do(name):
    plain, step = (MAKERS[name]("cuda", precision="fp32") for _ in range(2))
    plain.gradients.allowed = False
    expected, found = train(plain), train(step)
    assert step.gradients.replay is not None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)

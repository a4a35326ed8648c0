"""What the tests of training share: a few images of noise, ten small steps, and ways to follow and stop them."""

import math
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from vaestudy import training
from vaestudy.data import ImageSet
from vaestudy.models import NVAE, VAE, NVAEConfig, Terms
from vaestudy.training import Objective, Training, loop

SHAPE = (1, 8, 8)
STEPS = 10
REGULARISED = Objective(warmup=0.7, balance=True, spectral=0.1, spectral_start=1.0)


def noise(shape=SHAPE, count=200):
    generator = torch.Generator().manual_seed(0)
    storage = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", shape, storage, checksum="noise")


def dense(**settings):
    return VAE(SHAPE, **{"latent_dim": 3, "network": "kingma", "width": 16, **settings})


def deep(**changes):
    """An NVAE of two groups."""
    net = {"channels": 4, "groups": (1, 1), "latents": 2, "mixtures": 2, "encoder_cells": 1, "decoder_cells": 1}
    return NVAE(NVAEConfig(shape=SHAPE, **{**net, **changes}))


def small(**changes):
    """Ten steps of 20 images, a line of the log every two of them."""
    return replace(Training(images=20 * STEPS, batch=20, log_every=40, precision="fp32"), **changes)


def fit(*arguments, on_step=None, checkpoint_seconds=None, **options):
    """`training.fit`, which calls `on_step` after each step with the number of steps done."""
    with followed(on_step, checkpoint_seconds):
        return training.fit(*arguments, **options)


def fit_many(jobs, *, on_step=None, checkpoint_seconds=None, **options):
    """The same for many."""
    with followed(on_step, checkpoint_seconds):
        return training.fit_many(jobs, **options)


@contextmanager
def followed(on_step, checkpoint_seconds):
    """Trainings of this process tell their steps, and write checkpoints at other times than by default."""
    save_or_stop = loop.Loop.save_or_stop

    def then(own, requested):
        save_or_stop(own, requested)
        on_step(own.step)

    with ExitStack() as patches:
        if on_step is not None:
            patches.enter_context(mock.patch.object(loop.Loop, "save_or_stop", then))
        if checkpoint_seconds is not None:
            seconds = dict.fromkeys(loop.CHECKPOINT_SECONDS, checkpoint_seconds)
            patches.enter_context(mock.patch.multiple(loop, CHECKPOINT_SECONDS=seconds, CHECKPOINT_SHARE=math.inf))
        yield


class Interrupted(Exception):
    pass


def interrupt_after(step):
    def on_step(done):
        if done == step:
            raise Interrupted

    return on_step


class Poisoned:
    """Images of which the batches of some steps are not finite."""

    def __init__(self, images, broken):
        self.images, self.broken, self.calls = images, broken, 0
        self.shape, self.checksum = images.shape, images.checksum

    def __len__(self):
        return len(self.images)

    def to(self, device):
        return self

    def batch(self, index):
        self.calls += 1
        x = self.images.batch(index)
        return torch.full_like(x, torch.nan) if self.calls - 1 in self.broken else x

    def describe(self):
        return {"name": "poisoned", "steps": list(self.broken)}


class Unreadable:
    """Images of which one is not finite, and with it the one batch of each epoch that it is in."""

    def __init__(self, images, broken):
        self.images, self.broken, self.shape, self.checksum = images, broken, images.shape, images.checksum

    def __len__(self):
        return len(self.images)

    def to(self, device):
        return self

    def batch(self, index):
        x = self.images.batch(index)
        if isinstance(index, slice):
            return x
        return torch.where((torch.as_tensor(index) == self.broken)[:, None, None, None], torch.nan, x)

    def describe(self):
        return {"name": "unreadable", "image": self.broken}


class Own(nn.Module):
    """A model of somebody else's, without `config` or `shape`: an autoencoder with batch norm and no KL to speak of."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 64))

    def forward(self, x):
        code = self.net[:3](x)
        error = (self.net[3](code) - x.flatten(1)).square().sum(1)
        return Terms(error, 0.5 * code.square().sum(1)[None])


def assert_same(here, there):
    """Two nested states hold the same, bit for bit."""
    assert type(here) is type(there)
    if isinstance(here, torch.Tensor):
        assert torch.equal(here, there)
    elif isinstance(here, dict):
        assert here.keys() == there.keys()
        for name in here:
            assert_same(here[name], there[name])
    elif isinstance(here, list | tuple):
        for one, other in zip(here, there, strict=True):
            assert_same(one, other)
    else:
        assert here == there


def assert_same_history(here, there):
    """Two runs logged the same, but for the time it took."""
    assert here.history.drop(columns="seconds").equals(there.history.drop(columns="seconds"))


def start(code, *arguments, cwd=None, **environment):
    """A real Python process that can import this module, with pipes to talk through."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    known = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, *code, *map(str, arguments)], env=known, cwd=cwd, text=True, **pipes)

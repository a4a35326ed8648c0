"""A step of training: what a batch costs one model, or many side by side, and what it moves."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vaestudy.models.layers import SpectralPenalty, norms_set
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE, gaussian_kl
from vaestudy.training import distributed, objective
from vaestudy.training.capture import Captured
from vaestudy.training.config import EpochSampler, Training, autocast, flipped, make_optimizer, seed_step
from vaestudy.training.objective import Coefficients, LossTerms
from vaestudy.training.skips import GradientSkips, kinds, put_back


class Step(ABC):
    """What moves one or many models by a batch; model and images are on `device`.

    Subclasses say what each part of a batch brings (`feed`) and costs (`cost`). What `cost` reads keeps its place, so
    that its gradients can be a CUDA graph: with `static` shapes, and nothing of Python's that decides in it.
    """

    writes, processes = True, 1  # whether this process keeps log and checkpoints; how many work on each model
    together = False  # whether they tell each other their gradients, statistics and means
    skips: GradientSkips | None = None  # what leaves steps out; without it the loop does not go back
    micro_batches = range(1)  # which parts of a batch this process takes
    saved: tuple[str, ...] = ()  # attributes whose state goes into a checkpoint

    def __init__(self, model: nn.Module, training: Training, images, device: torch.device, static: bool = True):
        self.images, self.device, self.training = images, device, training
        self.net, self.parameters = model, [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training, self.parameters)
        self.cast = autocast(training, model, device)
        self.inputs: tuple[Tensor, ...] = ()
        self.totals: Tensor | None = None
        self.gradients = Captured(self.backward, static and device.type == "cuda")

    def __call__(self, step: int, progress: float) -> Float[Tensor, "models parts"]:
        """Take a step; loss, nll and the KL of each group, means over the batch in nats per image, a row a model."""
        if len(self.micro_batches) > 1:
            self.optimizer.zero_grad(set_to_none=not self.gradients.fixed)
        if self.totals is not None:
            self.totals.zero_()
        for part in self.micro_batches:
            self.feed(step, part, progress)
            # Gradients of several processes meet once, after this one's last part.
            meet = self.together and part == self.micro_batches[-1]
            with nullcontext() if meet or self.processes == 1 else self.net.no_sync():
                self.gradients()
        totals = self.totals.clone()
        self.update(step, distributed.mean(totals) if self.together else totals)
        return totals

    @abstractmethod
    def feed(self, step: int, part: int, progress: float) -> None:
        """Put in place what a part of the batch brings: all that differs from one to the next."""

    @abstractmethod
    def cost(self) -> LossTerms:
        """What the images that were fed cost."""

    def put(self, *inputs: Tensor) -> None:
        """New `inputs` on the device, in the place of the last ones once that is fixed."""
        if self.gradients.fixed:
            for place, new in zip(self.inputs, inputs, strict=True):
                place.copy_(new, non_blocking=True)
        else:
            self.inputs = tuple(part.to(self.device, non_blocking=True) for part in inputs)

    def backward(self) -> None:
        """The gradients of a part of the batch, added to those of the parts before it."""
        terms, share = self.cost(), len(self.micro_batches)
        if share == 1:  # what is not added to need not be zeros first
            self.optimizer.zero_grad()
        (terms.loss / share).sum().backward()
        parts = torch.cat([terms.loss[..., None], terms.nll[..., None], terms.kl], dim=-1).detach() / share
        self.totals = torch.atleast_2d(parts) if self.totals is None else self.totals.add_(parts)

    def update(self, step: int, totals: Tensor) -> None:
        """Move the weights."""
        self.optimizer.step()

    def state_dict(self) -> dict:
        parts = {name: getattr(self, name) for name in self.saved}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict) -> None:
        for name, own in state.items():
            getattr(self, name).load_state_dict(own)

    @abstractmethod
    def final_weights(self) -> list[dict[str, Tensor]]:
        """What is kept of each model once all images are seen."""


class ModelStep(Step):
    """A step of one model; its randomness is a function of (seed, step, micro batch)."""

    saved = ("model", "optimizer", "average", "penalty", "skips")

    def __init__(self, model: nn.Module, images, training: Training, device: torch.device):
        self.model, pressed = model.train(), training.objective
        self.channels_last = any(p.ndim == 4 for p in model.parameters())
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        self.writes, self.processes = distributed.rank() == 0, distributed.world()
        self.together = self.processes > 1
        self.micro_batches = range(distributed.rank(), training.micro_batches, self.processes)
        self.sampler = EpochSampler(len(images), training.batch, training.seed, device)
        equal_parts = self.sampler.batch % training.micro_batches == 0
        self.static = getattr(model, "capturable", False) and equal_parts and self.processes == 1
        super().__init__(model, training, images, device, self.static)
        self.groups = len(getattr(model, "group_shapes", [()]))
        self.penalty = SpectralPenalty(model) if pressed.spectral else None
        self.sizes = objective.balance_sizes(model.group_shapes).to(device) if pressed.balance else None
        self.average = copy.deepcopy(model).requires_grad_(False) if training.ema else None
        self.current, self.averaged = _floats(model), [] if self.average is None else _floats(self.average)
        self.skips = GradientSkips(training.grad_skip_factor or torch.inf, device)
        self.fused = bool(self.optimizer.defaults.get("fused"))
        # What a step changes whether it is wanted or not; a fused optimiser leaves the weights alone.
        self.changed = kinds([*model.buffers(), *self.averaged, *([] if self.fused else self.parameters)])
        self.moments: list[list[Tensor]] = []
        self.may_read = device.type == "cpu"  # whether a flag can be read for nothing
        if self.processes > 1:
            self.net = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
        # What a CPU trains is small enough to be compiled whole, which pays more there.
        if training.compile and device.type != "cpu" and hasattr(model, "compile_parts"):
            model.compile_parts()
        elif training.compile:
            self.net = compiled(self.net, device)

    def __call__(self, step: int, progress: float) -> Float[Tensor, "1 parts"]:
        # A forward pass already moves the statistics of batch norm.
        self.before = [torch.cat(lines) for lines in self.changed + self.moments]
        share_norms = self.training.sync_norm and self.together
        with norms_set(self.model, "gather", distributed.gather) if share_norms else nullcontext():
            return super().__call__(step, progress)

    def feed(self, step: int, part: int, progress: float) -> None:
        pressed = self.training.objective
        seed_step(self.training.seed, step, part)
        x = self.images.batch(self.sampler(step).tensor_split(self.training.micro_batches)[part])
        x = flipped(x) if self.training.flip else x
        x = x.contiguous(memory_format=torch.channels_last) if self.channels_last else x
        charged = [row[0] for row in objective.coefficients([pressed], progress, self.groups)]
        balancing, spectral = float(pressed.kl_weight(progress) < 1), pressed.spectral_weight(progress)
        self.put(x, *charged, *torch.tensor([balancing, spectral]))

    def cost(self) -> LossTerms:
        pressed, (x, *charged, balancing, spectral) = self.training.objective, self.inputs
        with self.cast:
            terms = self.net(x) if self.training.samples == 1 else self.net(x, samples=self.training.samples)
        charged, excess = Coefficients(*charged), 0.0
        if pressed.balance:
            weights = objective.balance_weights(terms.kl, self.sizes)
            charged = charged._replace(kl=charged.kl * torch.where(balancing > 0, weights, torch.ones_like(weights)))
        if pressed.kind == "total_correlation":
            excess = objective.total_correlation(*terms.posterior, len(self.images))
        cost = objective.elbo_loss(terms.nll.mean(), terms.kl.mean(1), charged, excess)
        return cost if self.penalty is None else cost._replace(loss=cost.loss + spectral * self.penalty())

    def update(self, step: int, totals: Tensor) -> None:
        """Move the weights and their average, unless the loss or the gradient is one to leave out."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        accepted = self.skips.accepts(torch.where(totals[0, 0].isfinite(), norm, torch.nan))
        if self.fused:
            self.optimizer.found_inf = (~accepted).float()
        self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():  # the first step starts the mean
                torch._foreach_lerp_(self.averaged, self.current, 1 - self.training.ema if step else 1.0)
        self.moments = self.moments or self.find_moments()
        if not (self.may_read and accepted):
            put_back(accepted, self.changed + self.moments, self.before)

    def find_moments(self) -> list[list[Tensor]]:
        """What an optimiser that is not fused has beside the weights: nothing before its first step."""
        found = [] if self.fused else [value for own in self.optimizer.state.values() for value in own.values()]
        return kinds([own for own in found if torch.is_tensor(own) and own.device == self.parameters[0].device])

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.moments = self.find_moments()

    def final_weights(self) -> list[dict[str, Tensor]]:
        return [(self.average or self.model).state_dict()]


class StackStep(Step):
    """A step of many VAEs of one configuration, whose trainings differ in seed and objective alone; each one's
    randomness is that of the model trained alone."""

    saved = ("stack", "optimizer")

    def __init__(self, models: Sequence[VAE], trainings: Sequence[Training], images, device: torch.device):
        self.stack = Stack(models).to(device)
        super().__init__(self.stack, trainings[0], images, device)
        self.objectives = [own.objective for own in trainings]
        seeds = [own.seed for own in trainings]
        self.samplers = {seed: EpochSampler(len(images), self.training.batch, seed, device) for seed in seeds}
        self.owners = torch.tensor([list(self.samplers).index(seed) for seed in seeds], device=device)
        penalised = [k for k, own in enumerate(self.objectives) if own.kind == "total_correlation"]
        self.penalised = torch.tensor(penalised, dtype=torch.int64, device=device)
        self.generator = torch.Generator(device)
        if self.training.compile:
            self.cost = compiled(self.cost, device)

    def feed(self, step: int, part: int, progress: float) -> None:
        index = torch.cat([sampler(step) for sampler in self.samplers.values()])
        batches, noise = self.images.batch(index).unflatten(0, (len(self.samplers), -1)), []
        for place, seed in enumerate(self.samplers):
            # The numbers that a model trained alone draws from the global generator, in the same order.
            seed_step(seed, step, generator=self.generator)
            if self.training.flip:
                batches[place] = flipped(batches[place], self.generator)
            shape = (self.training.samples, len(batches[place]), self.stack.models[0].config.latent_dim)
            noise.append(torch.randn(shape, device=self.device, generator=self.generator))
        self.put(batches, torch.stack(noise), *objective.coefficients(self.objectives, progress))

    def cost(self) -> LossTerms:
        """What the batches of all models cost, a row a model."""
        images, noise, *charged = self.inputs
        x = images[self.owners]
        with self.cast:
            mean, log_std = self.stack.posterior(x)
            z = mean[:, None] + log_std.exp()[:, None] * noise[self.owners]
            seen = x.repeat(1, self.training.samples, 1, 1, 1) if self.training.samples > 1 else x
            nll = -self.stack.log_prob(self.stack.decoder(z.flatten(1, 2)), seen).mean(1)
        kl = gaussian_kl(mean, log_std).sum(2).mean(1, keepdim=True)
        excess = torch.zeros_like(nll)
        if len(self.penalised):
            chosen = (part[self.penalised] for part in (mean, log_std, z[:, 0]))
            excess = excess.index_add(0, self.penalised, objective.total_correlation(*chosen, len(self.images)))
        return objective.elbo_loss(nll, kl, Coefficients(*charged), excess)

    def final_weights(self) -> list[dict[str, Tensor]]:
        return self.stack.state_dicts()


def compiled(function: Any, device: torch.device) -> Any:
    """`torch.compile` of a function or module, or what it is where a CPU lacks the C++ compiler that this takes."""
    return torch.compile(function) if device.type != "cpu" or compiler_works() else function


@cache
def compiler_works() -> bool:
    """Whether something can be compiled for the CPU here."""
    try:
        torch.compile(torch.sin)(torch.zeros(8))
    except (RuntimeError, OSError):
        return False
    return True


def _floats(model: nn.Module) -> list[Tensor]:
    """The weights and buffers that can be averaged."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]

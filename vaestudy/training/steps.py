"""What one step of training is: of a single model of any kind, or of many VAEs stacked into one network."""

import copy
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vaestudy.errors import InputError
from vaestudy.models.layers import NormAct
from vaestudy.models.spectral import SpectralPenalty
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE, gaussian_kl
from vaestudy.training import distributed
from vaestudy.training.capture import Captured
from vaestudy.training.config import (
    EpochSampler,
    Training,
    autocast,
    compiled,
    flipped,
    make_optimizer,
    seed_step,
)
from vaestudy.training.objective import (
    Coefficients,
    LossTerms,
    balance_sizes,
    balance_weights,
    coefficients,
    elbo_loss,
    total_correlation,
)
from vaestudy.training.skips import GradientSkips


@runtime_checkable
class Step(Protocol):
    """How the loop (`loop.Loop`) moves one or many models by a batch."""

    optimizer: torch.optim.Optimizer
    cast: torch.autocast
    writes: bool  # whether this process keeps the log and the checkpoints
    skips: GradientSkips | None  # what leaves steps out; without it the loop does not go back
    processes: int  # how many work together on each model

    def __call__(self, step: int, progress: float) -> Float[Tensor, "models parts"]:
        """Take a step; loss, nll and the KL of each group, means over the batch in nats per image, a row a model."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...

    def final_weights(self) -> list[dict[str, Tensor]]:
        """What is kept of each model once all images are seen."""

    def skipped(self) -> tuple[int, int]:
        """Steps left out in all, and the last ones in a row; read from the device when a line is logged."""


class ModelStep:
    """A step of one model; its randomness is a function of (seed, step, micro batch).

    On CUDA the gradients of a model that says `capturable` are a CUDA graph.
    """

    def __init__(self, model: nn.Module, images, training: Training, device: torch.device):
        self.model, self.images, self.training, self.device = model.train(), images, training, device
        self.channels_last = any(p.ndim == 4 for p in model.parameters())
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training, self.parameters)
        self.fused = bool(self.optimizer.defaults.get("fused"))
        self.average = copy.deepcopy(model).requires_grad_(False) if training.ema else None
        self.current, self.averaged = _floats(model), [] if self.average is None else _floats(self.average)
        self.sampler = EpochSampler(len(images), training.batch, training.seed, device)
        self.cast = autocast(training, model, device)
        self.groups = len(getattr(model, "group_shapes", [()]))
        self.penalty = SpectralPenalty(model) if training.objective.spectral else None
        self.sizes = balance_sizes(model.group_shapes).to(device) if training.objective.balance else None
        self.micro_batches = range(distributed.rank(), training.micro_batches, distributed.world())
        self.writes, self.processes = distributed.rank() == 0, distributed.world()
        self.skips = GradientSkips(training.grad_skip_factor or math.inf, device)
        for norm in (module for module in model.modules() if isinstance(module, NormAct)):
            norm.gather = distributed.gather if training.sync_norm and distributed.world() > 1 else None
        self.net = model
        if distributed.world() > 1:
            self.net = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
        # What a CPU trains is small enough to be compiled whole, which pays more there.
        if training.compile and device.type != "cpu" and hasattr(model, "compile_parts"):
            model.compile_parts()
        elif training.compile:
            self.net = compiled(self.net, device)

        equal_parts = self.sampler.batch % training.micro_batches == 0
        self.static = getattr(model, "capturable", False) and equal_parts and distributed.world() == 1
        self.gradients_of_part = Captured(self.gradients, self.static and device.type == "cuda")
        self.inputs: tuple[Tensor, ...] = ()
        self.totals: Tensor | None = None

    def __call__(self, step: int, progress: float) -> Float[Tensor, "1 parts"]:
        self.skips.copies.take(self._state())  # a forward pass already moves the statistics of batch norm
        if self.gradients_of_part.fixed:
            torch._foreach_zero_([p.grad for p in self.parameters if p.grad is not None])
        else:
            self.optimizer.zero_grad(set_to_none=True)
        if self.totals is not None:
            self.totals.zero_()
        shares = self.sampler(step).tensor_split(self.training.micro_batches)
        for part in self.micro_batches:
            seed_step(self.training.seed, step, part)
            self.feed(shares[part], progress)
            # Gradients meet once, after this process's last part.
            alone = distributed.world() > 1 and part != self.micro_batches[-1]
            with self.net.no_sync() if alone else nullcontext():
                self.gradients_of_part()
        totals = distributed.mean(self.totals.clone())
        self.update(step, totals[0])
        return totals[None]

    def feed(self, index: Tensor, progress: float) -> None:
        """The images at `index`, and the pressure that is in force: all that differs from one part to the next."""
        objective, x = self.training.objective, self.images.batch(index)
        if self.training.flip:
            x = flipped(x)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        charged = [part[0] for part in coefficients([objective], progress, self.groups)]
        more = torch.tensor([float(objective.kl_weight(progress) < 1), objective.spectral_weight(progress)])
        inputs = (x, *charged, *more)
        if self.gradients_of_part.fixed:
            for place, new in zip(self.inputs, inputs, strict=True):
                place.copy_(new, non_blocking=True)
        else:
            self.inputs = tuple(part.to(self.device, non_blocking=True) for part in inputs)

    def gradients(self) -> None:
        """Of one part of the batch, added to those before it: static shapes, no word from the host."""
        terms = self.cost()
        (terms.loss / len(self.micro_batches)).backward()
        parts = torch.cat([terms.loss[None], terms.nll[None], terms.kl]).detach() / len(self.micro_batches)
        self.totals = parts if self.totals is None else self.totals.add_(parts)

    def cost(self) -> LossTerms:
        """What the images that were fed cost."""
        objective, (x, *charged, balancing, spectral) = self.training.objective, self.inputs
        with self.cast:
            terms = self.net(x) if self.training.samples == 1 else self.net(x, samples=self.training.samples)
        if objective.group_kl_anneal and len(terms.kl) != self.groups:
            raise InputError(f"group_kl_anneal needs a model that names its {len(terms.kl)} groups by group_shapes")
        charged = Coefficients(*charged)
        if objective.balance:
            weights = balance_weights(terms.kl, self.sizes)
            charged = charged._replace(kl=charged.kl * torch.where(balancing > 0, weights, torch.ones_like(weights)))
        excess = 0.0
        if objective.kind == "total_correlation":
            excess = total_correlation(*terms.posterior, len(self.images))
        cost = elbo_loss(terms.nll.mean(), terms.kl.mean(1), charged, excess)
        return cost if self.penalty is None else cost._replace(loss=cost.loss + spectral * self.penalty())

    def update(self, step: int, loss: Float[Tensor, ""]) -> None:
        """Move the weights and their average, unless the loss or the gradient is one to leave out."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        accepted = self.skips.accepts(torch.where(loss.isfinite(), norm, torch.nan))
        if self.fused:
            self.optimizer.found_inf = (~accepted).float()
        self.optimizer.step()
        if self.average is not None:
            with torch.no_grad():  # the first step starts the mean
                torch._foreach_lerp_(self.averaged, self.current, 1 - self.training.ema if step else 1.0)
        self.skips.copies.put_back_unless(accepted, self._state())

    def _state(self) -> list[Tensor]:
        """What a step changes whether it is wanted or not: the statistics of batch norm, the averages, and, where the
        optimiser is not fused, the weights and their moments."""
        if self.fused:
            return [*self.model.buffers(), *self.averaged]
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        here = [value for value in moments if torch.is_tensor(value) and value.device == self.parameters[0].device]
        return [*self.parameters, *self.model.buffers(), *self.averaged, *here]

    def state_dict(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        parts |= {"penalty": self.penalty, "skips": self.skips}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict) -> None:
        for name, own in state.items():
            getattr(self, name).load_state_dict(own)

    def final_weights(self) -> list[dict[str, Tensor]]:
        return [(self.average or self.model).state_dict()]

    def skipped(self) -> tuple[int, int]:
        return self.skips.counts()


class StackStep:
    """A step of many VAEs of one configuration; each one's randomness is that of the model trained alone.

    What a step reads and writes keeps one place for the whole training, as a CUDA graph needs it.

    Args:
        models: the VAEs.
        trainings: how each is trained; seed and objective may differ.
        images: an ImageSet on `device`.
        device: where to train.
    """

    writes, processes, skips = True, 1, None

    def __init__(self, models: Sequence[VAE], trainings: Sequence[Training], images, device: torch.device):
        self.images, self.device, self.trainings, self.training = images, device, trainings, trainings[0]
        self.objectives = [own.objective for own in trainings]
        self.stack = Stack(models).to(device)
        self.optimizer = make_optimizer(self.training, list(self.stack.parameters()))
        self.cast = autocast(self.training, self.stack, device)
        self.compare = compiled(self.cost, device) if self.training.compile else self.cost
        seeds = [own.seed for own in trainings]
        self.samplers = {seed: EpochSampler(len(images), self.training.batch, seed, device) for seed in seeds}
        self.owners = torch.tensor([list(self.samplers).index(seed) for seed in seeds], device=device)
        batch = next(iter(self.samplers.values())).batch
        self.x = torch.zeros(len(self.samplers), batch, *images.shape, device=device)
        shape = (self.training.samples, batch, models[0].config.latent_dim)
        self.noise = torch.zeros(len(self.samplers), *shape, device=device)
        self.charged = _on(device, coefficients(self.objectives, 0.0))
        penalised = [k for k, own in enumerate(self.objectives) if own.kind == "total_correlation"]
        self.penalised = torch.tensor(penalised, dtype=torch.int64, device=device)
        self.totals = torch.zeros(len(models), 3, device=device)
        self.generator = torch.Generator(device)
        self.gradients_of_all = Captured(self.gradients, device.type == "cuda")

    def __call__(self, step: int, progress: float) -> Float[Tensor, "models 3"]:
        self.feed(step, progress)
        self.gradients_of_all()
        self.optimizer.step()
        return self.totals

    def feed(self, step: int, progress: float) -> None:
        """What follows from (seed, step): the images, the noise, and the pressure that is in force."""
        for place, new in zip(self.charged, coefficients(self.objectives, progress), strict=True):
            place.copy_(new, non_blocking=True)
        index = torch.cat([sampler(step) for sampler in self.samplers.values()])
        batches = self.images.batch(index).view_as(self.x)
        for place, seed in enumerate(self.samplers):
            # The numbers that a model trained alone draws from the global generator, in the same order.
            seed_step(seed, step, generator=self.generator)
            x = batches[place]
            self.x[place] = flipped(x, self.generator) if self.training.flip else x
            self.noise[place].normal_(generator=self.generator)

    def gradients(self) -> None:
        """Static shapes, no word from the host."""
        for parameter in self.stack.parameters():
            parameter.grad = None
        terms = self.compare()
        terms.loss.sum().backward()
        self.totals.copy_(torch.cat([terms.loss[:, None], terms.nll[:, None], terms.kl], dim=1).detach())

    def cost(self) -> LossTerms:
        """What the batches of all models cost, a row a model."""
        x = self.x[self.owners]
        with self.cast:
            mean, log_std = self.stack.posterior(x)
            z = mean[:, None] + log_std.exp()[:, None] * self.noise[self.owners]
            seen = x.repeat(1, self.training.samples, 1, 1, 1) if self.training.samples > 1 else x
            nll = -self.stack.log_prob(self.stack.decoder(z.flatten(1, 2)), seen).mean(1)
        kl = gaussian_kl(mean, log_std).sum(2).mean(1, keepdim=True)
        excess = torch.zeros_like(nll)
        if len(self.penalised):
            chosen = (part[self.penalised] for part in (mean, log_std, z[:, 0]))
            excess = excess.index_add(0, self.penalised, total_correlation(*chosen, len(self.images)))
        return elbo_loss(nll, kl, self.charged, excess)

    def state_dict(self) -> dict:
        return {"stack": self.stack.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.stack.load_state_dict(state["stack"])
        self.optimizer.load_state_dict(state["optimizer"])

    def final_weights(self) -> list[dict[str, Tensor]]:
        return self.stack.state_dicts()

    def skipped(self) -> tuple[int, int]:
        return 0, 0


def _on(device: torch.device, charged: Coefficients) -> Coefficients:
    return Coefficients(*(part.to(device, non_blocking=True) for part in charged))


def _floats(model: nn.Module) -> list[Tensor]:
    """The weights and buffers that can be averaged."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]

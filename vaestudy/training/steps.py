"""What one step of training is: of a single model of any kind, or of many VAEs stacked into one network."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vaestudy.models.layers import NormAct
from vaestudy.models.spectral import SpectralPenalty
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE, gaussian_kl
from vaestudy.training import distributed
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


@runtime_checkable
class Step(Protocol):
    """How the loop (`trainer.Loop`) moves one or many models by a batch."""

    optimizer: torch.optim.Optimizer
    cast: torch.autocast
    writes: bool  # whether this process keeps the log and the checkpoints
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
    """A step of one model; its randomness is a function of (seed, step, micro batch)."""

    def __init__(self, model: nn.Module, images, training: Training, device: torch.device):
        self.model, self.images, self.training, self.device = model.train(), images, training, device
        self.channels_last = any(p.ndim == 4 for p in model.parameters())
        if self.channels_last:
            model.to(memory_format=torch.channels_last)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training, self.parameters)
        self.average = copy.deepcopy(model).requires_grad_(False) if training.ema else None
        self.sampler = EpochSampler(len(images), training.batch, training.seed, device)
        self.cast = autocast(training, model, device)
        self.penalty = SpectralPenalty(model) if training.objective.spectral else None
        self.sizes = balance_sizes(model.group_shapes).to(device) if training.objective.balance else None
        self.micro_batches = range(distributed.rank(), training.micro_batches, distributed.world())
        self.writes, self.processes = distributed.rank() == 0, distributed.world()
        self.skips = GradientSkips(training.grad_skip_factor, device) if training.grad_skip_factor else None
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

    def __call__(self, step: int, progress: float) -> Float[Tensor, "1 parts"]:
        self.optimizer.zero_grad(set_to_none=True)
        # A forward pass already moves the statistics of batch norm.
        before = {buffer: buffer.clone() for buffer in self.model.buffers()} if self.skips is not None else {}
        shares = self.sampler(step).tensor_split(self.training.micro_batches)
        total = torch.zeros((), device=self.device)
        for part in self.micro_batches:
            seed_step(self.training.seed, step, part)
            # Gradients meet once, after this process's last part.
            alone = distributed.world() > 1 and part != self.micro_batches[-1]
            with self.net.no_sync() if alone else nullcontext():
                terms = self.cost(shares[part], progress)
                (terms.loss / len(self.micro_batches)).backward()
            parts = torch.cat([terms.loss[None], terms.nll[None], terms.kl]).detach()
            total = total + parts / len(self.micro_batches)
        self.update(step, before)
        return distributed.mean(total)[None]

    def cost(self, index: Tensor, progress: float) -> LossTerms:
        """What the images at `index` cost when a fraction `progress` of the training is done."""
        objective, x = self.training.objective, self.images.batch(index)
        if self.training.flip:
            x = flipped(x)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.cast:
            terms = self.net(x) if self.training.samples == 1 else self.net(x, samples=self.training.samples)
        charged = _on(self.device, coefficients([objective], progress, len(terms.kl)))
        charged = Coefficients(*(part[0] for part in charged))
        if objective.balance and objective.kl_weight(progress) < 1:
            charged = charged._replace(kl=charged.kl * balance_weights(terms.kl, self.sizes))
        excess = 0.0
        if objective.kind == "total_correlation":
            excess = total_correlation(*terms.posterior, len(self.images))
        cost = elbo_loss(terms.nll.mean(), terms.kl.mean(1), charged, excess)
        if self.penalty is None:
            return cost
        return cost._replace(loss=cost.loss + objective.spectral_weight(progress) * self.penalty())

    def update(self, step: int, before: dict[Tensor, Tensor]) -> None:
        """Move the weights and their average, unless the gradient is one to leave out.

        Args:
            step: number of the step.
            before: what each buffer of the model held before the forward pass.
        """
        if self.skips is None:
            self.optimizer.step()
            self.update_average(step)
        else:
            with self.skips.undo_if_refused(self.parameters, self.optimizer, self._averaged(), before):
                self.optimizer.step()
                self.update_average(step)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Exponential mean of weights and buffers; the first step starts it."""
        if self.average is None:
            return
        current = [t for t in self.model.state_dict().values() if t.is_floating_point()]
        torch._foreach_lerp_(self._averaged(), current, 1 - self.training.ema if step else 1.0)

    def _averaged(self) -> list[Tensor]:
        return [] if self.average is None else [t for t in self.average.state_dict().values() if t.is_floating_point()]

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
        return (0, 0) if self.skips is None else self.skips.counts()


class GradientSkips(nn.Module):
    """Adaptive gradient skipping without a word between host and device.

    A step whose gradient norm is not finite, or more than `factor` times its running mean, is undone.
    """

    def __init__(self, factor: float, device: torch.device):
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.zeros((), device=device))  # 0 until there is one
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64, device=device))  # in all, and in a row

    @torch.no_grad()
    def accepts(self, norm: Float[Tensor, ""]) -> Tensor:
        """Whether a gradient of this norm is used (a flag on the device), and its place in the mean."""
        finite, first = norm.isfinite(), self.mean == 0
        accepted = finite & (first | (norm < self.factor * self.mean))
        # A refused norm still moves the mean, so that a lasting change of scale is followed.
        moved = torch.where(first, norm, 0.98 * self.mean + 0.02 * torch.minimum(norm, 10 * self.mean))
        self.mean.copy_(torch.where(finite, moved, self.mean))
        in_a_row = torch.where(accepted, 0, self.count[1] + 1)
        self.count.copy_(torch.stack([self.count[0] + ~accepted, in_a_row]))
        return accepted

    @contextmanager
    def undo_if_refused(
        self,
        parameters: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        more: Sequence[Tensor],
        before: dict[Tensor, Tensor],
    ) -> Iterator[None]:
        """Takes changes to the weights, the moments, `more` and what is in `before` back where the gradient is refused.

        By a choice between old and new: a product with 0 would keep what is not a number.
        """
        accepted = self.accepts(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        before = before | {t: t.detach().clone() for t in (*parameters, *more, *self._moments(optimizer))}
        yield
        with torch.no_grad():
            # Moments that the first step has made begin at zero.
            for tensor in {*before, *self._moments(optimizer)}:
                tensor.copy_(torch.where(accepted, tensor, before.get(tensor, torch.zeros_like(tensor))))

    def _moments(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        known = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        return [value for value in known if value.device == self.mean.device]

    def counts(self) -> tuple[int, int]:
        return tuple(self.count.tolist())


class StackStep:
    """A step of many VAEs of one configuration; each one's randomness is that of the model trained alone.

    What a step reads and writes keeps one place for the whole training, as a CUDA graph needs it.

    Args:
        models: the VAEs.
        trainings: how each is trained; seed and objective may differ.
        images: an ImageSet on `device`.
        device: where to train.
    """

    writes, processes = True, 1

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
        self.replay: Callable[[], None] | None = None

    def __call__(self, step: int, progress: float) -> Float[Tensor, "models 3"]:
        self.feed(step, progress)
        if self.replay is None:
            self.replay = self.gradients if self.device.type == "cpu" else self.captured()
        self.replay()
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

    def captured(self) -> Callable[[], None]:
        """The gradients as one CUDA graph."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self.gradients()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.gradients()
        return graph.replay

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
        self.stack.unstack()
        return [model.state_dict() for model in self.stack.models]

    def skipped(self) -> tuple[int, int]:
        return 0, 0


def _on(device: torch.device, charged: Coefficients) -> Coefficients:
    return Coefficients(*(part.to(device, non_blocking=True) for part in charged))

"""Runs that differ in seed, latent size and objective alone, trained as one program over stacked weights."""

import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.files import write_json
from vaestudy.models.base import Posterior
from vaestudy.models.stack import Stack
from vaestudy.models.vae import VAE, gaussian_kl
from vaestudy.training import memory
from vaestudy.training import run as runs
from vaestudy.training.config import Order, Training, autocast, compiled, make_optimizer, mix
from vaestudy.training.loop import Loop, conclude, log_row
from vaestudy.training.objective import Pressure


def train(
    chunk: Sequence[tuple[runs.Run, Training]],
    images,
    device: torch.device,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Bring some runs to their end at once, from the start or from where an interruption has left them.

    Args:
        chunk: runs with untrained VAEs of one architecture, and how each is trained: seed and objective may differ
            from run to run (β, kind and capacity). Models of one seed stand next to each other, and among them
            models of one latent size.
        images: an ImageSet on `device`.
        device: where to train.
        on_step: called after each step with the number of steps done.

    Raises:
        InputError: a model that diverged, or too little memory.
    """
    # The state is named by the whole chunk, and so found again when some of its runs are finished.
    names = ",".join(run.path.name for run, _ in chunk)
    path = chunk[0][0].path.parent / f"sweep-{hashlib.sha256(names.encode()).hexdigest()[:12]}.pt"
    left = torch.load(path, weights_only=True, mmap=True)["runs"] if path.exists() else None
    chunk = [(run, own) for run, own in chunk if (run.path.name in left if left else not run.finished)]
    if not chunk:
        return
    if device.type == "cpu":
        memory.keep_freed()
    with memory.enough_for(f"{len(chunk)} models at once: set chunk below it"):
        _Loop(chunk, path, images, device, on_step).run_to_end()


def models_at_once(model: VAE, training: Training, objectives: Collection[str], device: torch.device) -> int:
    """How many models of this size are trained at once within half of the free memory, at least one."""
    weights = sum(p.numel() for p in model.parameters())
    outputs, hooks = [], []
    for layer in (*model.encoder, *model.decoder):
        hooks.append(layer.register_forward_hook(lambda _, __, y: outputs.append(y.numel())))
    with torch.no_grad():
        model.encoder(torch.zeros(1, *model.shape))
        model.decoder(torch.zeros(1, model.config.latent_dim))
    for hook in hooks:
        hook.remove()
    # Weight, gradient, two moments and half-precision copies; outputs and their gradients; what the loss keeps.
    kept = 16 if model.config.likelihood == "bernoulli" else 64
    needed = weights * (16 + 4) + training.batch * (8 * sum(outputs) + kept * outputs[-1])
    if "total_correlation" in objectives:
        needed += 6 * 4 * training.batch**2 * model.config.latent_dim
    return max(1, memory.free_bytes(device) // 2 // needed)


class _Loop(Loop):
    """The state of the models that are trained together, and the steps that change it.

    What a step reads and writes keeps one place for the whole training, as a CUDA graph needs it.
    """

    def __init__(self, chunk, path, images, device, on_step):
        self.runs, self.trainings = [run for run, _ in chunk], [own for _, own in chunk]
        self.path, self.images, self.device, self.on_step = path, images, device, on_step
        training = self.trainings[0]  # for all that the runs have in common
        super().__init__(training, f"{len(chunk)} models", len(chunk))
        seeds = [own.seed for own in self.trainings]
        distinct = list(dict.fromkeys(seeds))
        latents = [run.model.config.latent_dim for run in self.runs]
        self.stack = Stack([run.model for run in self.runs], [seeds.count(seed) for seed in distinct])
        self.stack.to(device)
        self.optimizer = make_optimizer(training, list(self.stack.parameters()))
        self.pressure = Pressure([own.objective for own in self.trainings], latents, len(images), device)
        self.cast = autocast(training, self.stack, device)
        self.compare = compiled(self.cost, device) if training.compile else self.cost
        self.orders = [Order(len(images), training.batch, seed, device) for seed in distinct]
        self.generator = torch.Generator(device)
        self.x = torch.zeros(len(self.orders), self.orders[0].batch, *images.shape, device=device)
        self.noise = torch.zeros(len(self.runs), self.orders[0].batch, max(latents), device=device)
        # Models with the same noise: (seed, its place in x, latents, rows).
        self.alike, row = [], 0
        for (seed, size), alike in itertools.groupby(zip(seeds, latents, strict=True)):
            rows = slice(row, row + len(list(alike)))
            self.alike.append((seed, distinct.index(seed), size, rows))
            row = rows.stop
        self.totals = torch.zeros(len(self.runs), 3, device=device)
        self.logged, self.replay = 0, None
        self.resume()

    def advance(self) -> None:
        self.feed()
        if self.replay is None:
            self.replay = self.gradients if self.device.type == "cpu" else self.captured()
        self.replay()
        self.update()
        if self.on_step is not None:
            self.on_step(self.step)

    def feed(self) -> None:
        """What follows from (seed, step): the images, the noise, and the pressure that is in force."""
        self.pressure.set(self.step / self.training.steps)
        batches = self.images.batch(torch.cat([order(self.step) for order in self.orders])).view_as(self.x)
        for seed, place, latents, rows in self.alike:
            # The numbers that a model trained alone draws from the global generator, in the same order.
            self.generator.manual_seed(mix(seed, self.step, 1))
            drawn = {"generator": self.generator, "device": self.device}
            x = batches[place]
            if self.training.flip:
                x = torch.where(torch.rand(len(x), 1, 1, 1, **drawn) < 0.5, x.flip(3), x)
            self.x[place] = x
            self.noise[rows, :, :latents] = torch.randn(len(x), latents, **drawn)

    def gradients(self) -> None:
        """The step itself: static shapes, no word from the host."""
        for parameter in self.stack.parameters():
            parameter.grad = None
        loss, nll, kl = self.compare()
        loss.sum().backward()
        self.totals += torch.stack([loss, nll, kl], dim=1).detach()

    def captured(self) -> Callable[[], None]:
        """The step as one CUDA graph."""
        totals, side = self.totals.clone(), torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self.gradients()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.gradients()
        self.totals.copy_(totals)
        return graph.replay

    def cost(self) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, nll and KL of every model: means over its batch, nats per image (k,)."""
        with self.cast:
            mean, log_std = self.stack.posterior(self.x)
            z = mean + log_std.exp() * self.noise
            nll = self.stack.nll(self.stack.decoder(z), self.x)
        kl = gaussian_kl(mean, log_std).sum(2).mean(1)
        return nll + self.pressure.cost(kl, Posterior(mean, log_std, z)), nll, kl

    def update(self) -> None:
        self.set_learning_rate()
        self.optimizer.step()
        self.step += 1

    def log(self) -> None:
        means = (self.totals / (self.step - self.logged)).tolist()
        self.totals.zero_()
        self.logged = self.step
        for run, own, (loss, nll, kl) in zip(self.runs, self.trainings, means, strict=True):
            if not math.isfinite(loss):
                which = f"{own.objective}, {run.model.config.latent_dim} latents, seed {own.seed}"
                raise InputError(f"training diverged after {self.step} steps: lower learning_rate ({which})")
            run.append(log_row(self.training, self.step, loss, nll, [kl], self.share_of_seconds))

    @property
    def share_of_seconds(self) -> float:
        """What one of the models took."""
        return self.seconds / len(self.runs)

    def save(self) -> None:
        state = {
            "runs": [run.path.name for run in self.runs],
            "step": self.step,
            "logged": self.logged,
            "seconds": self.seconds,
            "stack": self.stack.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "totals": self.totals,
        }
        self.checkpoint(self.path, state)

    def resume(self) -> None:
        if self.path.exists():
            state = torch.load(self.path, map_location=self.device, weights_only=True)
            self.stack.load_state_dict(state["stack"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.totals.copy_(state["totals"])
            self.step, self.logged, self.seconds = state["step"], state["logged"], state["seconds"]
        for run, own in zip(self.runs, self.trainings, strict=True):
            write_json(run.path / "config.json", runs.describe(run.model, self.images, own))
            run.keep_log_until(self.step * self.training.batch)

    def finish(self) -> None:
        self.stack.unstack()
        for run, own in zip(self.runs, self.trainings, strict=True):
            runs.save_weights(run.path / "model.safetensors", run.model.state_dict())
            together = {"models_at_once": len(self.runs)}
            conclude(run, own, self.images, self.device, self.cast, self.share_of_seconds, **together)
        self.path.unlink()

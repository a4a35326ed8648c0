"""How a model is trained: what is set for it, and the rates, order, noise and precision that follow from it."""

import math
import platform
import zlib
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaestudy.errors import InputError, check_bounds, check_choices
from vaestudy.training.objective import Objective

# Where weights see no gradient, Adam's moments sink into denormal numbers, which are slow on CPUs: 38 ms a step of the
# optimiser in place of 8. Threads inherit the mode when they start, so it is set before the first parallel operation.
torch.set_flush_denormal(True)

OPTIMIZERS = ("adam", "adamw", "adamax", "adagrad")


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        images: images to be seen in all, counting repetitions.
        batch: images a step; a set with fewer images is one batch.
        samples: noise samples for each image of a step; more than one is for VAEs alone.
        learning_rate: at its highest.
        optimizer: one of OPTIMIZERS.
        betas: decay rates of the moments (adam, adamw, adamax).
        eps: added to the denominator (adam, adamw, adamax).
        weight_decay: decoupled for adamw, otherwise added to the gradient.
        lr_warmup: fraction of the images over which the learning rate rises linearly from 0.
        lr_decay_from: fraction of the images after which it falls along a half cosine; 1 keeps it constant.
        min_lr_ratio: share of the learning rate that is left at the end.
        ema: decay of the averaged weights a step; 0 keeps the last weights.
        grad_skip_factor: a step whose gradient norm is this many times its running mean is left out, as every one is
            that is not finite; 0 leaves out those alone.
        flip: mirror each image with probability 1/2.
        precision: fp32, bf16, or auto (bf16 on CUDA, and on CPUs that have it for models that gain from it).
        compile: compile the model with torch.compile: whole, or on CUDA, if many of its parts are alike, these.
        micro_batches: equal parts of each batch, each with noise and batch statistics of its own, which processes share
            out or one process takes in turn, with the same result.
        sync_norm: batch norm takes its statistics from the parts that all processes have at hand, not from its own.
        log_every: images between two lines of the log.
        seed: of the order of the images and of the noise.
        objective: what is minimised.

    Raises:
        InputError: an unknown optimiser or precision, or a number out of its range.
    """

    images: int
    batch: int = 128
    samples: int = 1
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    lr_warmup: float = 0.0
    lr_decay_from: float = 1.0
    min_lr_ratio: float = 0.0
    ema: float = 0.0
    grad_skip_factor: float = 0.0
    flip: bool = False
    precision: str = "auto"
    compile: bool = False
    micro_batches: int = 1
    sync_norm: bool = False
    log_every: int = 20_000
    seed: int = 0
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        check_choices(self, optimizer=OPTIMIZERS, precision=("auto", "fp32", "bf16"))
        check_bounds(self, images="[1, inf)", batch="[1, inf)", samples="[1, inf)", learning_rate="(0, inf)")
        check_bounds(self, lr_warmup="[0, 1]", lr_decay_from="[0, 1]", min_lr_ratio="[0, 1]")
        check_bounds(self, ema="[0, 1)", grad_skip_factor="[0, inf)", micro_batches="[1, inf)")
        if self.batch % self.micro_batches:
            raise InputError(f"micro_batches must divide the batch of {self.batch}, not {self.micro_batches}")


def learning_rate(training: Training, progress: float) -> float:
    """Linear rise, a plateau, a half cosine down to `min_lr_ratio` of the peak."""
    rate = training.learning_rate
    if progress < training.lr_warmup:
        return rate * progress / training.lr_warmup
    if progress > training.lr_decay_from:
        fall = (progress - training.lr_decay_from) / (1 - training.lr_decay_from)
        rate *= training.min_lr_ratio + (1 - training.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * fall))
    return rate


def make_optimizer(training: Training, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a configuration, in its fused or multi-tensor form.

    Beyond CPUs its rate is a tensor on the device, but for Adagrad, which would read it back.
    """
    on_cpu = parameters[0].device.type == "cpu"
    moments = {"betas": training.betas, "eps": training.eps}
    make, options = {
        "adam": (torch.optim.Adam, {**moments, "fused": True}),
        "adamw": (torch.optim.AdamW, {**moments, "fused": True}),
        "adamax": (torch.optim.Adamax, {**moments, "foreach": True, "capturable": not on_cpu}),
        "adagrad": (torch.optim.Adagrad, {"fused": on_cpu}),
    }[training.optimizer]
    optimizer = make(parameters, lr=training.learning_rate, weight_decay=training.weight_decay, **options)
    # Given to the constructor, it would be read back.
    for group in [] if on_cpu or training.optimizer == "adagrad" else optimizer.param_groups:
        group["lr"] = torch.tensor(training.learning_rate, device=parameters[0].device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Put a rate in force without a word between host and device."""
    for group in optimizer.param_groups:
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate


class EpochSampler:
    """Which images each step sees: a function of (seed, step) alone, so that nothing of it has to be saved."""

    def __init__(self, count: int, batch: int, seed: int, device: torch.device):
        self.count, self.batch, self.seed, self.device = count, min(batch, count), seed, device
        self.epoch, self.permutation = -1, torch.empty(0)

    def __call__(self, step: int) -> Int[Tensor, " batch"]:
        epoch, place = divmod(step, self.count // self.batch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            self.epoch, self.permutation = epoch, torch.randperm(self.count, generator=generator).to(self.device)
        return self.permutation[place * self.batch : (place + 1) * self.batch]


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed from several whole numbers."""
    return zlib.crc32(",".join(map(str, numbers)).encode())


def seed_step(seed: int, step: int, micro_batch: int = 0, generator: torch.Generator | None = None) -> None:
    """Start the noise of a step, that of `generator` or the global one, from (seed, step, micro batch) alone."""
    number = derive_seed(seed, step, 1 + micro_batch)
    # torch.manual_seed would visit every backend, 0.2 ms a step.
    (generator or torch.default_generator).manual_seed(number)
    if generator is None and torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


def flipped(x: Float[Tensor, "n c h w"], generator: torch.Generator | None = None) -> Float[Tensor, "n c h w"]:
    """Each image mirrored with probability 1/2."""
    mirrored = torch.rand(len(x), 1, 1, 1, device=x.device, generator=generator) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def autocast(training: Training, model: nn.Module, device: torch.device) -> torch.autocast:
    """bf16 where the configuration says so, or where `auto` finds that it pays."""
    enabled = training.precision == "bf16"
    if training.precision == "auto" and device.type == "cuda":
        enabled = torch.cuda.is_bf16_supported()
    elif training.precision == "auto" and device.type == "cpu":
        enabled = getattr(model, "gains_from_bf16", False) and has_bf16_instructions()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 itself; where it does not, bf16 is slower than fp32."""
    native = torch.cpu._is_avx512_bf16_supported() if platform.machine() in ("x86_64", "AMD64") else True
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()

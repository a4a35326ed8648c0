"""How a model is trained: what is set for it, and the rates, order, noise and precision that follow from it."""

import math
import platform
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vaestudy.errors import InputError
from vaestudy.training.objective import Objective

# Weights that see no gradient let Adam's moments sink into denormal numbers, which CPUs compute with many times more
# slowly: measured, 38 ms a step of the optimiser in place of 8. Threads inherit the mode when they start, so it has to
# be set before the first parallel operation.
torch.set_flush_denormal(True)

OPTIMIZERS = ("adam", "adamw", "adamax", "adagrad")


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        images: images to be seen in all, counting repetitions.
        batch: images a step.
        learning_rate: at its highest.
        optimizer: one of OPTIMIZERS.
        betas: decay rates of the moments (adam, adamw, adamax).
        eps: added to the denominator (adam, adamw, adamax).
        weight_decay: decoupled for adamw, otherwise added to the gradient.
        rise: fraction of the images over which the learning rate rises linearly from 0.
        decay_from: fraction of the images after which it falls along a half cosine; 1 keeps it constant.
        decay_to: share of the learning rate that is left at the end.
        ema: decay of the averaged weights a step; 0 keeps the last weights.
        skip_above: a step whose gradient norm is this many times its running mean, or not finite, is left out; 0
            never leaves one out.
        flip: mirror each image with probability 1/2.
        precision: fp32, bf16, or auto (bf16 on CUDA, and on CPUs that have it for models that gain from it).
        compile: compile the model with torch.compile: whole, or on CUDA, if many of its parts are alike, these.
        shards: equal parts of each batch, each with noise and batch statistics of its own. Processes share them out,
            so their number does not change the result; one process takes them in turn, with memory for one.
        sync_norm: batch norm takes its statistics from the parts that all processes have at hand, not from its own;
            for small parts, at the price of a message for each layer.
        log_every: images between two lines of the log.
        save_every: images between two checkpoints.
        seed: of the order of the images and of the noise.
        objective: what is minimised.
    """

    images: int
    batch: int = 128
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    rise: float = 0.0
    decay_from: float = 1.0
    decay_to: float = 0.0
    ema: float = 0.0
    skip_above: float = 0.0
    flip: bool = False
    precision: str = "auto"
    compile: bool = False
    shards: int = 1
    sync_norm: bool = False
    log_every: int = 20_000
    save_every: int = 1_000_000
    seed: int = 0
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        if self.images < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise InputError("images and batch must be 1 or more and learning_rate above 0")
        if self.shards < 1 or self.batch % self.shards:
            raise InputError(f"shards must divide the batch of {self.batch}, not {self.shards}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise InputError(f"precision must be auto, fp32 or bf16, not {self.precision!r}")

    @property
    def steps(self) -> int:
        return math.ceil(self.images / self.batch)


def learning_rate(training: Training, progress: float) -> float:
    """Linear rise, a plateau, a half cosine down to `decay_to` of the peak."""
    rate = training.learning_rate
    if progress < training.rise:
        return rate * progress / training.rise
    if progress > training.decay_from:
        fall = (progress - training.decay_from) / (1 - training.decay_from)
        rate *= training.decay_to + (1 - training.decay_to) * 0.5 * (1 + math.cos(math.pi * fall))
    return rate


def make_optimizer(training: Training, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a configuration, in its fused or multi-tensor form."""
    rates = {"lr": training.learning_rate, "weight_decay": training.weight_decay}
    if training.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, **rates, fused=parameters[0].device.type == "cpu")
    rates |= {"betas": training.betas, "eps": training.eps}
    if training.optimizer == "adamax":
        return torch.optim.Adamax(parameters, **rates, foreach=True)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    return make(parameters, **rates, fused=True)


class Order:
    """Which images each step sees: a function of (seed, step) alone, so that nothing of it has to be saved."""

    def __init__(self, count: int, batch: int, seed: int, device: torch.device):
        self.count, self.batch, self.seed, self.device = count, min(batch, count), seed, device
        self.epoch, self.permutation = -1, torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        epoch, place = divmod(step, self.count // self.batch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch))
            self.epoch = epoch
            self.permutation = torch.randperm(self.count, generator=generator).to(self.device)
        return self.permutation[place * self.batch : (place + 1) * self.batch]


def mix(*numbers: int) -> int:
    """A 32-bit seed from several whole numbers."""
    return zlib.crc32(",".join(map(str, numbers)).encode())


def seed_noise(seed: int) -> None:
    """torch.manual_seed for the generators that a training draws from: it visits every backend, 0.2 ms a step."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def autocast(training: Training, model: nn.Module, device: torch.device) -> torch.autocast:
    """bf16 where the configuration says so, or where `auto` finds that it pays."""
    enabled = training.precision == "bf16"
    if training.precision == "auto" and device.type == "cuda":
        enabled = torch.cuda.is_bf16_supported()
    elif training.precision == "auto" and device.type == "cpu":
        enabled = getattr(model, "gains_from_bf16", False) and has_bf16_instructions()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def compiled(net: Callable, device: torch.device) -> Callable:
    """`net` after torch.compile, with what a CPU wants differently.

    There torch's own noise is drawn faster than the compiler's, and small sums, such as the gradient of doubling a map,
    are better written down once than made anew by each of their readers.
    """
    on_cpu = {"fallback_random": True, "unroll_reductions_threshold": 1}
    return torch.compile(net, options=on_cpu if device.type == "cpu" else None)


def has_bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 itself; where it does not, bf16 is slower than fp32."""
    native = torch.cpu._is_avx512_bf16_supported() if platform.machine() in ("x86_64", "AMD64") else True
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()

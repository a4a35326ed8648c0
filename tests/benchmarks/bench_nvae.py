"""NVAE's training step against its plain form, and the memory that a step keeps for its backward pass."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

import torch
import torch.nn.functional as F
from bench_kernels import by_torch
from torch import Tensor

from vaestudy.models import NVAE, NVAEConfig, cells, layers
from vaestudy.training import Training, cost, memory
from vaestudy.training.config import make_optimizer

BATCH, STEPS = 16, 4
WARM_UP, ROUNDS = 2, 7  # blocks of steps; the allocator needs about six steps to come to rest
NETWORK = NVAEConfig(groups=(2, 4))  # 32x32x3, 32 channels, two scales, 2 cells per group
FORMS = {
    "fp32": {},
    "bf16": {"bf16": True},
    "bf16, recomputing": {"bf16": True, "checkpoint": "norm_act"},
    "bf16, compiled": {"bf16": True, "compile": True},
}


def rows() -> list[dict]:
    """Images a second of a training step, and bytes kept at the celeba64 preset, each beside the plain form's.

    All forms take turns in blocks of steps, so that the load of a shared machine cancels: speeds and `ratio` are
    medians over the rounds, beside the quartiles of the ratio.
    """
    speeds = in_turn()
    plain = speeds.pop("plain")
    about = {"unit": "images/s", "peer_value": statistics.median(plain)}
    about["peer"] = "the published order of operations in NCHW, fp32 and torch's own gradients"
    found = []
    for name, own in speeds.items():
        low, middle, high = statistics.quantiles([fast / slow for fast, slow in zip(own, plain, strict=True)], n=4)
        measured = {"value": statistics.median(own), "ratio": middle, "quartiles": [low, high]}
        found.append({"name": f"NVAE step, {name}", **about, **measured})
    return found + memory_rows()


def in_turn() -> dict[str, list[float]]:
    """Images a second of each form in each round, the plain one first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory.keep_freed()
    steps = {"plain": training_step(NETWORK, device, torch.contiguous_format)}
    steps |= {name: training_step(NETWORK, device, **settings) for name, settings in FORMS.items()}
    found = {name: [] for name in steps}
    for number in range(WARM_UP + ROUNDS):
        for name, step in steps.items():
            with plain_form() if name == "plain" else nullcontext():
                start = time.perf_counter()
                for _ in range(STEPS):
                    step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
            if number >= WARM_UP:
                found[name].append(STEPS * BATCH / (time.perf_counter() - start))
    return found


@contextmanager
def plain_form() -> Iterator[None]:
    """torch's own gradients, and cells that double the map do so before all else, as published (NVAE, fig. 3a).

    The library does it as late as it commutes: the numbers are the same.
    """

    def first(cell: cells.Cell, x: Tensor, by_layer: bool = False) -> Tensor:
        return late(cell, F.interpolate(x, scale_factor=2) if isinstance(cell.skip, cells.UpsampleSkip) else x)

    def skip(own: cells.UpsampleSkip, x: Tensor) -> Tensor:  # of what `first` has doubled
        return own.conv(F.interpolate(x[:, :, ::2, ::2], scale_factor=2, mode="bilinear", align_corners=True))

    def layer(own: layers.NormActConv, x: Tensor) -> Tensor:
        return own.conv(own.norm_act(x))

    late = cells.Cell.compute
    with (
        mock.patch.object(layers, "gradients_by_hand", by_torch),
        mock.patch.object(cells.Cell, "compute", first),
        mock.patch.object(cells.UpsampleSkip, "forward", skip),
        mock.patch.object(layers.NormActConv, "forward", layer),
    ):
        yield


def training_step(
    config: NVAEConfig,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
    *,
    bf16: bool = False,
    compile: bool = False,
    checkpoint: str = "none",
) -> Callable[[], None]:
    """Forward, backward and an Adamax step."""
    model = NVAE(replace(config, checkpoint=checkpoint)).to(device=device, memory_format=layout)
    net = torch.compile(model) if compile else model
    optimizer = make_optimizer(Training(images=1, optimizer="adamax"), list(model.parameters()))
    x = (torch.randint(0, 256, (BATCH, *config.shape)) / 255).to(device=device, memory_format=layout)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            terms = net(x)
        (terms.nll + terms.kl.sum(0)).mean().backward()
        optimizer.step()

    return step


def memory_rows() -> list[dict]:
    """What celeba64 keeps at batch 16 in fp32, counted on the meta device, which holds no data."""
    kept = {}
    for mode in ("none", "norm_act", "cell"):
        with torch.device("meta"):
            model = NVAE(NVAEConfig.preset("celeba64", checkpoint=mode))
        kept[mode] = BATCH * cost.kept_per_image(model) / 2**30
    about = {"unit": "GiB", "peer": "the same network, recomputing nothing", "peer_value": kept["none"]}
    return [
        {
            "name": f"celeba64 kept for backward, {words}",
            "value": kept[mode],
            **about,
            "ratio": kept[mode] / kept["none"],
        }
        for mode, words in (("norm_act", "recomputing norms and activations"), ("cell", "recomputing cells"))
    ]

"""NVAE's training step against its plain form, and the memory that a step keeps for its backward pass."""

import ctypes.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from vaestudy.models import NVAE, NVAEConfig, cells, layers
from vaestudy.training import Training, cost, memory
from vaestudy.training.config import make_optimizer

BATCH, STEPS = 16, 12  # the allocator needs about six steps to come to rest
NETWORK = NVAEConfig(groups=(2, 4))  # 32x32x3, 32 channels, two scales, 2 cells per group
FORMS = {
    "fp32": {},
    "bf16": {"bf16": True},
    "bf16, recomputing": {"bf16": True, "checkpoint": "norm_act"},
    "bf16, compiled": {"bf16": True, "compile": True},
}
JEMALLOC = {"MALLOC_CONF": "thp:always,dirty_decay_ms:-1,oversize_threshold:0"}  # keep what is freed, in huge pages


def rows() -> list[dict]:
    """Images a second of a training step, and bytes kept at the celeba64 preset, each beside the plain form's."""
    speeds = measured()
    library = ctypes.util.find_library("jemalloc")
    if library and not torch.cuda.is_available():
        environment = os.environ | JEMALLOC | {"LD_PRELOAD": library}
        script = [sys.executable, __file__]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
        speeds |= {f"{name}, jemalloc": value for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    plain = speeds.pop("plain")
    about = {
        "unit": "images/s",
        "peer": "the published order of operations in NCHW, fp32 and torch's own gradients",
        "peer_value": plain,
    }
    found = [
        {"name": f"NVAE step, {name}", "value": speed, **about, "ratio": speed / plain}
        for name, speed in speeds.items()
    ]
    return found + memory_rows()


def measured() -> dict[str, float]:
    """Images a second of each form, the plain one first."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory.keep_freed()
    with mock.patch.object(layers, "gradients_by_hand", return_value=False), public_order():
        speeds = {"plain": images_per_second(NETWORK, device, torch.contiguous_format)}
    for name, settings in FORMS.items():
        speeds[name] = images_per_second(NETWORK, device, **settings)
    return speeds


@contextmanager
def public_order() -> Iterator[None]:
    """Cells that double the map do so before all else, as the published architecture has it (NVAE, fig. 3a).

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
        mock.patch.object(cells.Cell, "compute", first),
        mock.patch.object(cells.UpsampleSkip, "forward", skip),
        mock.patch.object(layers.NormActConv, "forward", layer),
    ):
        yield


def images_per_second(
    config: NVAEConfig,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
    *,
    bf16: bool = False,
    compile: bool = False,
    checkpoint: str = "none",
) -> float:
    """Forward, backward and an Adamax step; the fastest of a few."""
    model = NVAE(replace(config, checkpoint=checkpoint)).to(device=device, memory_format=layout)
    net = torch.compile(model) if compile else model
    optimizer = make_optimizer(Training(images=1, optimizer="adamax"), list(model.parameters()))
    x = (torch.randint(0, 256, (BATCH, *config.shape)) / 255).to(device=device, memory_format=layout)
    best = float("inf")
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            terms = net(x)
        (terms.nll + terms.kl.sum(0)).mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return BATCH / best


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


if __name__ == "__main__":
    print(json.dumps(measured()))

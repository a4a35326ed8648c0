"""NVAE's training step against its plain form, and the memory that a step keeps for its backward pass."""

import contextlib
import time
from dataclasses import replace

import torch

from vaestudy import memory
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.models.layers import Conv
from vaestudy.training import Training, make_optimizer

BATCH, STEPS = 16, 12  # the allocator needs about six steps to come to rest
NETWORK = NVAEConfig(groups=(2, 4))  # 32x32x3, 32 channels, two scales, 2 cells per group


def rows() -> list[dict]:
    """Images a second of a training step, and bytes kept at the celeba64 preset, each beside the plain form's."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory.keep_freed()
    with plain_depthwise():
        plain = images_per_second(NETWORK, device)
    about = {"unit": "images/s", "peer": "plain form: NCHW, fp32, torch's own gradients", "peer_value": plain}
    found = []
    for name, settings in {
        "channels_last, fp32": {"channels_last": True},
        "channels_last, bf16": {"channels_last": True, "bf16": True},
        "channels_last, bf16, recomputing": {"channels_last": True, "bf16": True, "checkpoint": "norm_act"},
    }.items():
        value = images_per_second(replace(NETWORK, checkpoint=settings.pop("checkpoint", "none")), device, **settings)
        found.append({"name": f"NVAE step, {name}", "value": value, **about, "ratio": value / plain})
    return found + memory_rows()


def images_per_second(
    config: NVAEConfig, device: torch.device, *, channels_last: bool = False, bf16: bool = False
) -> float:
    """Forward, backward and an Adamax step; the fastest of a few."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = NVAE(config).to(device=device, memory_format=layout)
    optimizer = make_optimizer(Training(images=1, optimizer="adamax"), list(model.parameters()))
    x = (torch.randint(0, 256, (BATCH, *config.shape)) / 255).to(device=device, memory_format=layout)
    best = float("inf")
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            terms = model(x)
        (terms.nll + terms.kl.sum(0)).mean().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return BATCH / best


@contextlib.contextmanager
def plain_depthwise():
    """Depthwise convolutions with the gradients that torch has for them."""
    ours = Conv.is_depthwise
    Conv.is_depthwise = property(lambda conv: False)
    yield
    Conv.is_depthwise = ours


def memory_rows() -> list[dict]:
    """What celeba64 keeps at batch 16 in fp32, counted on the meta device, which holds no data."""
    kept = {}
    for mode in ("none", "norm_act", "cell"):
        with torch.device("meta"):
            model = NVAE(NVAEConfig.preset("celeba64", checkpoint=mode))
        kept[mode] = memory.kept_bytes(model, BATCH) / 2**30
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

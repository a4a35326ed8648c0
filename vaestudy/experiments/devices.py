"""NVAE's devices, switched off one at a time: what each does to the bound, and what it costs in time."""

from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from vaestudy import published
from vaestudy.data import ImageSet
from vaestudy.experiments.evidence import PARTS, Context, apart
from vaestudy.experiments.hierarchy import pressed, settled, train_and_test
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Job, Objective, fit


class Device(NamedTuple):
    """Fields of the network and of the objective that leave a device out."""

    network: dict[str, Any]
    objective: dict[str, Any]


DEVICES = {
    "residual distributions": Device({"residual": False}, {}),
    "depthwise cells": Device({"decoder_cell": "regular"}, {}),
    "squeeze-and-excitation": Device({"squeeze_excitation": False}, {}),
    "batch norm with Swish": Device({"norm_activation": "wn_elu"}, {}),
    "spectral regularisation": Device({}, {"spectral": 0.0}),
}


def wanted(context: Context) -> list[tuple[Context, str, int]]:
    """All devices ("nothing" left out), and without each of them."""
    return [(context, without, seed) for seed in context.seeds for without in ("nothing", *DEVICES)]


def job(context: Context, without: str, seed: int, images: ImageSet) -> Job:
    """The training of one model, on images at the bits of its network."""
    sizes, own = context.sizes, DEVICES.get(without, Device({}, {}))
    config = NVAEConfig.preset(sizes["architecture"], shape=images.shape, seed=seed, **own.network)
    recipe = pressed(sizes["training"], seed, own.objective)
    return Job.below(context.runs_root, "devices", NVAE(config), images.quantized(config.bits), recipe)


def trained_and_scored(context: Context, without: str, seed: int) -> dict:
    """The row of one model: its bound on held-out images, and the seconds of its training."""
    train_set, test_set = train_and_test(context)
    run = fit(*job(context, without, seed, train_set))
    bound = run.bound(test_set.quantized(run.model.config.bits))
    return settled(run) | {"without": without, "elbo": bound["elbo_nats"]}


PARTS["devices"] = apart("devices", trained_and_scored, wanted, job, lambda context: train_and_test(context)[0])


def table(records: pd.DataFrame, config: NVAEConfig, objective: Objective) -> list[dict]:
    """A row a device: whether this network has it, what it gives and costs by the records, and what the paper found.

    `records` are those of the part `devices`, or an empty table. Gains are nats per image with a 95 % interval over
    seeds, each model with the device against the one of the same seed without it; costs are ratios of training seconds.
    """
    by_device = records.groupby("without") if len(records) else {}
    found, by_seed = [], {name: models.set_index("seed").sort_index() for name, models in by_device}
    shown = asdict(config) | asdict(objective)
    for name, off in DEVICES.items():
        is_on = all(shown[field] != value for field, value in (off.network | off.objective).items())
        row = {"device": name, "in the models shown": is_on}
        if {"nothing", name} <= by_seed.keys():
            whole, without = by_seed["nothing"].align(by_seed[name], join="inner", axis=0)
            gain = whole["elbo"] - without["elbo"]
            mean, reach = gain.mean(), stats.t.ppf(0.975, len(gain) - 1) * gain.sem()  # of one seed not a number
            row |= {"gain, nats": mean, "from": mean - reach, "to": mean + reach, "seeds": len(gain)}
            row["time with it / without"] = float((whole["training_seconds"] / without["training_seconds"]).median())
        found.append(row | {"published, bits per dimension": published.NVAE_ABLATIONS[name]})
    return found

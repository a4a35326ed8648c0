"""NVAE's devices, switched off one at a time: what each does to the bound, and what it costs in time."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from vaestudy import published
from vaestudy.data import ImageSet
from vaestudy.experiments.common import mean_of, pressed
from vaestudy.experiments.evidence import Context, apart
from vaestudy.experiments.hierarchy import settled
from vaestudy.models import NVAE, NVAEConfig
from vaestudy.training import Job, Objective, fit

# What leaves each device out: fields of the network and of the objective.
DEVICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "residual distributions": ({"residual": False}, {}),
    "depthwise cells": ({"decoder_cell": "regular"}, {}),
    "squeeze-and-excitation": ({"squeeze_excitation": False}, {}),
    "batch norm with Swish": ({"norm_activation": "wn_elu"}, {}),
    "spectral regularisation": ({}, {"spectral": 0.0}),
}


def job(context: Context, without: str, seed: int, images: ImageSet) -> Job:
    """The training of one model, on images at the bits of its network."""
    sizes, (network, objective) = context.sizes, DEVICES.get(without, ({}, {}))
    config = NVAEConfig.preset(sizes["architecture"], shape=images.shape, seed=seed, **network)
    recipe = pressed(sizes["training"], seed, **objective)
    return Job.below(context.runs_root, "devices", NVAE(config), images.quantized(config.bits), recipe)


def trained_and_scored(context: Context, without: str, seed: int) -> dict:
    """The row of one model: its bound on held-out images, and the seconds of its training."""
    train_set, test_set = context.train_and_test()
    run = fit(*job(context, without, seed, train_set))
    bound = run.bound(test_set.quantized(run.model.config.bits))
    return settled(run) | {"without": without, "elbo": bound["elbo_nats"]}


apart("devices", trained_and_scored, lambda _sizes: ("nothing", *DEVICES), job)


def table(records: pd.DataFrame, config: NVAEConfig, objective: Objective) -> list[dict]:
    """A row a device: whether this network has it, what it gives and costs by the records, and what the paper found.

    `records` are those of the part `devices`, or an empty table. Gains are nats per image with a 95 % interval over
    seeds, each model with the device against the one of the same seed without it; costs are ratios of training seconds.
    """
    by_device = records.groupby("without") if len(records) else {}
    found, by_seed = [], {name: models.set_index("seed").sort_index() for name, models in by_device}
    shown = asdict(config) | asdict(objective)
    for name, changes in DEVICES.items():
        is_on = all(shown[field] != value for fields in changes for field, value in fields.items())
        row = {"device": name, "in the models shown": is_on}
        if {"nothing", name} <= by_seed.keys():
            whole, without = by_seed["nothing"].align(by_seed[name], join="inner", axis=0)
            gain = whole["elbo"] - without["elbo"]
            row |= mean_of(gain, "gain, nats") | {"seeds": len(gain)}
            row["time with it / without"] = float((whole["training_seconds"] / without["training_seconds"]).median())
        found.append(row | {"published, bits per dimension": published.NVAE_ABLATIONS[name]})
    return found

"""Stage 3: NVAE at several β, a flat VAE beside it, its ablations, and what each of its latent groups knows."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vaestudy import metrics, profiles, published
from vaestudy.data import ImageSet
from vaestudy.experiments.common import runs_root, sizes
from vaestudy.experiments.common import train_and_test as _train_and_test
from vaestudy.models import NVAE, VAE, NVAEConfig
from vaestudy.settings import NVAESettings
from vaestudy.training import Job, Objective, Run, Training, distributed, fit, fit_many, folder
from vaestudy.training.objective import beta_norm

SCORES = ("higgins", "factor_vae", "mig")
PAIRS = 5
FIXED_SIDES = ("dsprites", "mnist", "fashion_mnist", "cifar10")


class Runs(NamedTuple):
    """The stage's trained models: NVAEs by β, the flat VAE, and small NVAEs by the device that each lacks."""

    nvae: dict[float, Run]
    flat: Run
    ablations: dict[str, Run]

    def named(self) -> dict[str, Run]:
        """NVAEs and the flat VAE under the names that the figures give them."""
        return {**{f"NVAE, β = {beta:g}": run for beta, run in self.nvae.items()}, "flat VAE": self.flat}


def dataset(settings: NVAESettings) -> str:
    """The data set asked for, or the rendered faces of the profile."""
    return settings.dataset or sizes(settings)["dataset"]


def image_side(settings: NVAESettings) -> int | None:
    """The side asked for, the profile's for images of any size, or None for the set's own."""
    return settings.image_size or (None if dataset(settings) in FIXED_SIDES else sizes(settings)["image_size"])


def check(settings: NVAESettings) -> None:
    """Raise InputError for settings that cannot work together, before any work."""
    if side := image_side(settings):
        # Sides that the scales do not divide are refused before any image is rendered or read.
        channels = NVAEConfig.preset(settings.preset or sizes(settings)["preset"]).shape[0]
        config(settings, (channels, side, side))


def config(settings: NVAESettings, shape: tuple[int, int, int]) -> NVAEConfig:
    """The network for images of this shape."""
    bits = {"bits": settings.bits} if settings.bits else {}
    fields = {"shape": shape, "seed": settings.seed, "checkpoint": sizes(settings)["checkpoint"], **bits}
    return NVAEConfig.preset(settings.preset or sizes(settings)["preset"], **fields)


def train_and_test(settings: NVAESettings) -> tuple[ImageSet, ImageSet]:
    """Images to train on and held-out ones, at the bits of the network."""
    parts = _train_and_test(settings, dataset(settings), image_side(settings))
    bits = config(settings, parts[0].shape).bits
    return tuple(part.quantized(bits) for part in parts)


def betas(settings: NVAESettings) -> tuple[float, ...]:
    """1, the β asked for, and what the profile adds."""
    return tuple(sorted({1.0, settings.beta, *sizes(settings)["betas"]}))


def training(settings: NVAESettings, beta: float) -> Training:
    """The training of the NVAE at one β."""
    recipe = sizes(settings)["training"]
    return replace(recipe, seed=settings.seed, objective=replace(recipe.objective, beta=beta))


def flat_model(settings: NVAESettings, shape: tuple[int, int, int]) -> VAE:
    """A plain convolutional VAE with the likelihood of the NVAE."""
    like = config(settings, shape)
    same = {"likelihood": like.likelihood, "mixtures": like.mixtures, "bits": like.bits}
    return VAE(shape, network="conv", seed=settings.seed, **same, **sizes(settings)["flat"])


def ablation(settings: NVAESettings, shape: tuple[int, int, int], change: str = "") -> tuple[NVAE, Training]:
    """A small NVAE and its training, with the fields of one of profiles.ABLATIONS changed."""
    _, of_network, of_objective = profiles.ABLATIONS[change] if change else ("", {}, {})
    bits, recipe = config(settings, shape).bits, sizes(settings)["ablation"]
    small = NVAEConfig.preset("smoke", shape=shape, seed=settings.seed, bits=bits, **of_network)
    objective: Objective = replace(recipe.objective, **of_objective)
    return NVAE(small), replace(recipe, seed=settings.seed, objective=objective)


def train_images(settings: NVAESettings) -> ImageSet:
    """What the models learn from."""
    return train_and_test(settings)[0]


def jobs(settings: NVAESettings, train_set: ImageSet) -> dict[str, list[Job]]:
    """Every training of the stage: an NVAE for each β, the flat VAE, and small NVAEs that each lack a device."""
    shape, changes = train_set.shape, ("", *sizes(settings)["ablations"])
    pairs: dict[str, list[tuple[Any, Training]]] = {
        "NVAE": [(NVAE(config(settings, shape)), training(settings, beta)) for beta in betas(settings)],
        "flat VAE": [(flat_model(settings, shape), sizes(settings)["flat_training"])],
        "ablations": [ablation(settings, shape, change) for change in changes],
    }
    return {name: [_job(settings, model, train_set, recipe) for model, recipe in own] for name, own in pairs.items()}


def train(settings: NVAESettings, train_set: ImageSet) -> Runs:
    """Train everything that the page shows, side by side on the cores of a CPU, or find it trained."""
    named = jobs(settings, train_set)
    runs = iter(fit_many([job for alike in named.values() for job in alike]))
    found = {name: [next(runs) for _ in alike] for name, alike in named.items()}
    changes = ("", *sizes(settings)["ablations"])
    by_beta = dict(zip(betas(settings), found["NVAE"], strict=True))
    return Runs(by_beta, *found["flat VAE"], dict(zip(changes, found["ablations"], strict=True)))


def _job(settings: NVAESettings, model: Any, train_set: ImageSet, recipe: Training) -> Job:
    return Job(model, train_set, recipe, folder(runs_root(settings), "nvae", model, train_set, recipe))


def train_and_score(settings: NVAESettings) -> list[Run]:
    """Train everything, and put the bound and the scores of each latent group into the record of each NVAE.

    Processes that `torchrun` has started share out the NVAEs alone; the small networks are left to one process.
    """
    train_set, test_set = train_and_test(settings)
    if distributed.world() > 1:
        found = [fit(*job) for job in jobs(settings, train_set)["NVAE"]]
    else:
        found = list(train(settings, train_set).nvae.values())
    for run in found if distributed.rank() == 0 else []:
        scores = [] if train_set.factors is None else group_scores(settings, run, train_set)
        run.update_record(test=run.bound(test_set), scores_by_group=scores)
    return found


def held_out_bounds(settings: NVAESettings, runs: Mapping[str, Run], test_set: ImageSet) -> pd.DataFrame:
    """A row a model: nats per image and bits per dimension, the latter also importance-weighted; training seconds."""
    row, rows = sizes(settings), []
    some = test_set.select(slice(0, row["weighted_images"]))
    for name, run in runs.items():
        weighted = metrics.importance_weighted_bound(run.log_weights(some, row["weights"])).mean()
        tight = metrics.bits_per_dim(-weighted, test_set.dims)
        about = {f"bits, K = {row['weights']}": tight, "seconds": run.provenance["seconds"]}
        rows.append({"model": name, **run.bound(test_set), **about})
    return pd.DataFrame(rows)


def group_scores(settings: NVAESettings, run: Run, train_set: ImageSet) -> list[dict[str, float]]:
    """The scores of each latent group's pooled code."""
    seen = train_set.select(slice(0, sizes(settings)["scored_images"]))
    groups, factors = run.codes_by_group(seen)
    exam = {"seed": settings.seed, "pairs": PAIRS, "only": SCORES}
    return [metrics.scores(codes, factors, **exam) for codes in groups]


def scores_by_group(settings: NVAESettings, runs: Runs, train_set: ImageSet) -> pd.DataFrame:
    """A row a model and latent group: β, β_norm and the scores of the pooled code; the flat VAE is one group."""
    rows = []
    for name, beta, run in [*(("NVAE", beta, run) for beta, run in runs.nvae.items()), ("flat VAE", 1.0, runs.flat)]:
        latents = sum(int(np.prod(shape)) for shape in getattr(run.model, "group_shapes", [(0,)]))
        latents = latents or run.model.config.latent_dim
        about = {"model": name, "beta": beta, "beta_norm": beta_norm(beta, latents, train_set.dims)}
        for group, scores in enumerate(group_scores(settings, run, train_set), 1):
            rows.append(about | {"group": group, **scores})
    return pd.DataFrame(rows)


def ablation_table(runs: Runs, test_set: ImageSet) -> list[dict]:
    """A row a small network: what was changed, its bound on held-out images, and what the paper found."""
    rows = []
    for change, run in runs.ablations.items():
        bound = run.bound(test_set)
        changed = profiles.ABLATIONS[change][0] if change else "nothing"
        row = {"changed": changed, "bits_per_dim": bound["bits_per_dim"], "KL, nats": bound["kl_nats"]}
        rows.append(row | {"published": published.NVAE_ABLATIONS.get(change)})
    return rows


def headline(settings: NVAESettings, bounds: pd.DataFrame, groups: pd.DataFrame, bits: int) -> list[dict]:
    """The stage's rows on the report's first page."""
    theirs = published.nvae(dataset(settings))
    by_model = bounds.set_index("model")["bits_per_dim"]
    nvae = groups[groups["model"] == "NVAE"]
    top = nvae.loc[nvae["higgins"].idxmax()]
    best = f"{top['higgins']:.3f}: β = {top['beta']:g}, group {top['group']}"
    rows = [
        (f"NVAE, bits per dimension of {dataset(settings)}, {bits} bits", by_model["NVAE, β = 1"], *theirs),
        ("flat VAE trained for about as long, bits per dimension", by_model["flat VAE"], None, None),
        (f"best Higgins score (L = {PAIRS}) of a latent group", best, None, None),
    ]
    return [dict(zip(("quantity", "ours", "published", "source"), row, strict=True)) for row in rows]

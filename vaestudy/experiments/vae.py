"""Stage 1: one VAE beside one with two latents; how noisy its gradients are, and what its latents do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from vaestudy import metrics, published
from vaestudy.data import ImageSet
from vaestudy.experiments import common
from vaestudy.experiments.common import checked, image_side, images, mean_of, runs_root, scorable, sizes, train_and_test
from vaestudy.experiments.group_scores import KNOWN_FROM
from vaestudy.experiments.scores import kl_of_some, live_codes, r2_by_factor, read_out_row
from vaestudy.experiments.vae_parts import gradient_spreads
from vaestudy.models import VAE
from vaestudy.settings import VAESettings
from vaestudy.training import Job, Objective, Run, Training, distributed, fit
from vaestudy.words import fixed, label, listed

WARMUP = 0.1
SCORED_IMAGES = 100_000


class Runs(NamedTuple):
    """The stage's trained models: with the latents asked for, the same after a training half as long, and with two."""

    main: Run
    half: Run
    plane: Run

    def named(self) -> dict[str, Run]:
        """The two that the figures show, under the names that they give them."""
        return {f"{run.model.config.latent_dim} latents": run for run in (self.main, self.plane)}


def check(settings: VAESettings) -> None:
    """Raise InputError for settings that cannot work together, before any work."""
    shape = checked(settings, image_side(settings), train=2, test=2)
    with torch.device("meta"):
        model(settings, shape, settings.latent_dim)


def training(settings: VAESettings) -> Training:
    """How the VAE is trained."""
    objective = Objective(beta=settings.beta, warmup=WARMUP)
    return replace(sizes(settings)["training"], seed=settings.seed, objective=objective)


def model(settings: VAESettings, shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """The VAE before training."""
    network = {"network": settings.network, "width": sizes(settings)["width"], "likelihood": settings.likelihood}
    return VAE(shape, latent_dim=latent_dim, seed=settings.seed, **network)


def jobs(settings: VAESettings, train_set: ImageSet) -> dict[str, list[Job]]:
    """Every training of the stage: with the latents asked for, as long and half as long, and with two latents."""
    recipe, latent_dim = training(settings), settings.latent_dim

    def job(latent_dim: int, images: int) -> list[Job]:
        own = model(settings, train_set.shape, latent_dim)
        return [Job.below(runs_root(settings), "vae", own, train_set, replace(recipe, images=images))]

    return {
        f"VAE of {latent_dim} latents": job(latent_dim, recipe.images),
        "the same, half as long": job(latent_dim, recipe.images // 2),
        "VAE of 2 latents, for the plane": job(2, sizes(settings)["plane_images"]),
    }


def train(settings: VAESettings, train_set: ImageSet) -> Runs:
    """Train the models, or find them trained."""
    return Runs(*(fit(*job) for (job,) in jobs(settings, train_set).values()))


def train_and_score(settings: VAESettings) -> list[Run]:
    """Train, and put the bound on held-out images and the score card into the record."""
    train_set, test_set = train_and_test(settings)
    runs = train(settings, train_set)
    if distributed.rank() == 0:
        seen = images(settings).subsample(SCORED_IMAGES)
        (codes, factors), kept, scores = runs.main.codes(seen), scorable(seen), {"score_card": []}
        if len(kept) > 1:
            card = metrics.score_card(codes, factors[:, kept], seed=settings.seed)
            scores["score_card"] = [row._asdict() for row in card]
        elif kept:
            scores["read_out"] = metrics.read_out(codes, factors[:, kept[0]], seed=settings.seed)._asdict()
        runs.main.update_record(test=runs.main.bound(test_set), **scores)
    return list(runs)


def factors_table(train_set: ImageSet) -> list[dict]:
    """The factors that made the images, and how many values each has."""
    if train_set.factors is None:
        return [{"factor": "none known", "values": 0}]
    known = zip(train_set.factors.names, train_set.factors.sizes, strict=True)
    return [{"factor": name, "values": size} for name, size in known]


def gradient_variances(run: Run, test_set: ImageSet, seed: int, draws: int = 1000) -> pd.DataFrame:
    """Variance of each estimator of the bound's gradient (columns), averaged over 1, 10 and 100 noise samples (rows).

    Summed over an image's variational parameters, mean over images.
    """
    return pd.Series(gradient_spreads(run, test_set, seed, draws, (1, 10, 100))).unstack(level=0)


def held_out_bounds(runs: Mapping[str, Run], test_set: ImageSet) -> pd.DataFrame:
    """The bound of each model on held-out images: a row a model, nats per image."""
    return pd.DataFrame([{"model": name, **run.bound(test_set)} for name, run in runs.items()])


def settled(runs: Runs, test_set: ImageSet) -> dict[str, int | str]:
    """How many latents carry .05 nats or more after the whole training and after one half as long."""
    counts = [int(metrics.live(run.kl_by_latent(test_set)[0]).sum()) for run in (runs.half, runs.main)]
    images = [run.record["training"]["images_seen"] for run in (runs.half, runs.main)]
    words = "is the same" if counts[0] == counts[1] else "has changed: it is not settled"
    found = {"half_live": counts[0], "live": counts[1], "half_images": images[0], "images": images[1]}
    return {**found, "latents": runs.main.model.config.latent_dim, "words": words}


def latents_in_use(run: Run, test_set: ImageSet) -> pd.DataFrame:
    """A row a latent: its mean KL in nats, and whether it is active (Burda et al., 2016, sec. 5.2)."""
    codes, _ = run.codes(test_set)
    return pd.DataFrame({"kl_nats": run.kl_by_latent(test_set)[0], "active": metrics.active_units(codes)})


def importance_ladder(run: Run, test_set: ImageSet, samples: tuple[int, ...]) -> Float[np.ndarray, "sizes n"]:
    """Importance-weighted bounds of 500 held-out images for several numbers of samples, nats."""
    weights = run.log_weights(test_set.select(slice(0, 500)), samples=max(samples))
    return metrics.importance_weighted_ladder(weights, samples)


def live_code(settings: VAESettings, run: Run, train_set: ImageSet) -> tuple[np.ndarray, pd.DataFrame]:
    """The live latents of some images, and a column for each of their factors that can be scored, if there are any."""
    seen = train_set if train_set.factors is None else images(settings).subsample(SCORED_IMAGES)
    (codes, factors), kept = run.codes(seen), scorable(seen)
    alive = live_codes(codes, kl_of_some(run, seen))
    return alive, pd.DataFrame({seen.factors.names[k]: factors[:, k] for k in kept}, index=range(len(codes)))


def rotated_codes(
    codes: Float[np.ndarray, "n d"], factors: pd.DataFrame, seed: int
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """A code, the same whitened and rotated, and the true factors where several are known: the codes by name.

    With them a row a code: mean absolute correlation between latents, and the mutual information gap or, where one
    factor alone is known, what a linear read-out tells of it.
    """
    turned = metrics.rotated(metrics.whitened(codes).astype(codes.dtype), seed=seed)
    named = {"VAE": codes, "VAE, whitened and rotated": turned}
    several, values = factors.shape[1] > 1, factors.to_numpy()
    if several:
        named["true factors"] = metrics.factor_codes(values)
    rows = []
    for name, code in named.items():
        row = {"code": name, "mean |correlation|": metrics.mean_correlation(metrics.correlation(code))}
        if several:
            row["mutual information gap"] = metrics.mig(code, values, seed=seed)
        elif factors.shape[1]:
            row |= read_out_row(code, values[:, 0], seed)
        rows.append(row)
    return named, pd.DataFrame(rows)


def knowledge(settings: VAESettings, codes: Float[np.ndarray, "n d"], factors: pd.DataFrame) -> list[str]:
    """A sentence on the factors that nearest neighbours read from a code, and those that they do not.

    None where fewer than two are known: a single one is a class, whose numbers mean nothing.
    """
    if factors.shape[1] < 2:
        return []
    r2 = pd.Series(r2_by_factor(settings.dataset, codes, factors.to_numpy(), list(factors), settings.seed))
    r2 = r2.rename(label)
    known, unknown = r2[r2 >= KNOWN_FROM], r2[r2 < KNOWN_FROM]
    names = [f"{name} ({fixed(value, 2)})" for name, value in known.items()] or ["none of the factors"]
    beside = f", but not {listed(unknown.index)}" if len(known) and len(unknown) else ""
    return [f"The code of the VAE shown knows {listed(names)}{beside} (R² by nearest neighbours, one half at least)."]


def gradient_ratio(noise: pd.DataFrame) -> dict[str, float | int]:
    """Of records of gradients: how many models, of how many images, and the geometric mean of the variances' ratios."""
    ratio = np.exp(np.log(noise["score_function_variance"] / noise["pathwise_variance"]).mean())
    return {"models": len(noise), "images": float(noise["images"].iloc[0]), "ratio": float(ratio)}


def beside_claims(samples: pd.DataFrame, codes: pd.DataFrame) -> list[dict]:
    """Rows of what stands beside claims 1.2 and 1.5, from records of those parts: other batches, and another β; mean
    differences of models of one seed with their 95 % intervals."""
    rows = []
    for batch, models in samples.groupby("batch_size") if len(samples) else ():
        elbo = models.pivot(index="seed", columns="samples", values="elbo")
        row = {"what": f"ten noise samples for one, batches of {batch:g}", **mean_of(elbo[10] - elbo[1], "difference")}
        rows.append(row | {"unit": "nats of the bound", "models": len(elbo)})
    for beta, models in codes.groupby("beta") if len(codes) else ():
        gain = mean_of(models["mig"] - models["mig_rotated"], "difference")
        rows.append({"what": f"code for its rotations, β = {beta:g}", **gain, "unit": "MIG", "models": len(models)})
    return rows


def headline(
    settings: VAESettings, bounds: pd.DataFrame, ladder: np.ndarray, latents: pd.DataFrame, records: pd.DataFrame
) -> list[dict]:
    """The stage's rows on the report's first page, beside the published bound where there is one.

    `records` hold a model a row, whose gradient variances are a number by which another run is compared.
    """
    theirs = published.AEVB_MNIST.get(settings.latent_dim) if settings.dataset == "mnist" else None
    beside = (f"{theirs:g} ± 1", published.AEVB_SOURCE) if theirs else (None, None)
    bound, samples = bounds["elbo_nats"].iloc[0], max(sizes(settings)["ladder"])
    gained = np.mean(ladder[-1] - ladder[0])
    rows = [
        common.headline_row("ELBO on held-out images, nats per image", f"{bound:.1f}", *beside),
        common.headline_row(f"ELBO to the bound of K = {samples}, nats gained", f"{gained:.2f}"),
        common.headline_row(f"active latents of {settings.latent_dim}", int(latents["active"].sum())),
    ]
    noise = records[records["part"] == "gradients"]
    if len(noise):
        name = "gradient variance, score function over pathwise, powers of ten"
        powers = np.log10(noise["score_function_variance"] / noise["pathwise_variance"]).tolist()
        ours = f"{np.mean(powers):.2f} ± {np.std(powers, ddof=1):.2f}"
        rows.append(common.headline_row(name, ours, values=powers, digits=2))
    return rows

"""The parts of stage 1: noise of gradients, noise samples a step, superfluous latents, and rotations of a code."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from vaestudy import metrics
from vaestudy.data import ImageSet
from vaestudy.experiments.beta_vae_parts import (
    LIVE_NATS,
    described,
    examined,
    live_codes,
    network,
    rotated_mig,
    side_by_side,
)
from vaestudy.experiments.evidence import Context, part
from vaestudy.experiments.gradients import BLOCK, gradient_draws, spread
from vaestudy.models import VAE
from vaestudy.training import Job, Run, Training, fit_many, folder
from vaestudy.training import sweep as sweeps


def train(context: Context, images: ImageSet, trainings: Iterable[tuple[int, Training]]) -> list[Run]:
    """A model for each latent size and training, its seed that of the training."""
    jobs = []
    for latent_dim, recipe in trainings:
        model = VAE(images.shape, latent_dim=latent_dim, seed=recipe.seed, **network(context.sizes))
        jobs.append(Job(model, images, recipe, folder(context.runs_root, "vae", model, images, recipe)))
    return fit_many(jobs)


def split(context: Context) -> tuple[ImageSet, ImageSet]:
    """Images to train on and those held out, which the sizes count."""
    images = context.images()
    return images.train_test_split(min(context.sizes["test_images"], len(images) // 2))


@part("gradients", "vae")
def gradients(context: Context, seeds: tuple[int, ...]) -> list[dict]:
    """Variance of each gradient estimator of a model after a short training, a noise sample an image.

    The score function with a baseline takes the mean of the other nine of ten samples from each (leave one out).
    """
    sizes, (seen, unseen) = context.sizes, split(context)
    runs = train(context, seen, [(sizes["latent_dim"], replace(sizes["training"], seed=seed)) for seed in seeds])
    x, rows = unseen.batch(slice(0, 16)), []
    for run in runs:
        torch.manual_seed(run.provenance["seed"])
        found = gradient_draws(run.model, x.to(run.device), sizes["gradient_draws"])
        row = described(run, seen) | {"pathwise_variance": spread(found["estimator B"], 1)}
        row |= {"estimator_a_variance": spread(found["estimator A"], 1)}
        row |= {"score_function_variance": spread(found["score function"], 1)}
        row |= {"baseline_variance": BLOCK * spread(found["score function, baseline"], BLOCK)}
        rows.append(row)
    return rows


@part("samples", "vae")
def samples(context: Context, seeds: tuple[int, ...]) -> list[dict]:
    """The bound on held-out images after batches of 100 and 10 with one and ten noise samples, at equal images."""
    sizes, (seen, unseen) = context.sizes, split(context)
    rows = []
    for batch in sizes["batches"]:
        recipes = [replace(sizes["training"], batch=batch, samples=n, seed=s) for n in (1, 10) for s in seeds]
        for run in train(context, seen, [(sizes["latent_dim"], recipe) for recipe in recipes]):
            count = run.record["config"][2]["samples"]
            rows.append(described(run, seen) | {"samples": count, "elbo": run.bound(unseen)["elbo_nats"]})
    return rows


@part("overfitting", "vae")
def overfitting(context: Context, seeds: tuple[int, ...]) -> list[dict]:
    """The bound on few training images after many epochs, and on others, with few latents and with many."""
    sizes, (seen, unseen) = context.sizes, split(context)
    few = seen.select(slice(0, sizes["train_size"]), first=sizes["train_size"]).compact()
    recipes = [(size, replace(sizes["training"], seed=seed)) for size in sizes["latent_dims"] for seed in seeds]
    return [
        described(run, few)
        | {
            "train_size": len(few),
            "train_elbo": run.bound(few)["elbo_nats"],
            "test_elbo": run.bound(unseen)["elbo_nats"],
        }
        for run in train(context, few, recipes)
    ]


@part("latents", "vae")
def latents(context: Context, seeds: tuple[int, ...]) -> list[dict]:
    """How many latents carry .05 nats or more, of 20 and of 50."""
    sizes, (seen, unseen) = context.sizes, split(context)
    recipes = [(size, replace(sizes["training"], seed=seed)) for size in sizes["latent_dims"] for seed in seeds]
    return [described(run, seen) | live(run, unseen) for run in train(context, seen, recipes)]


def live(run: Run, images: ImageSet) -> dict:
    """How many latents of a model are live, and the nats of its code and its bound."""
    kl = run.kl_by_latent(images)[0]
    bound = run.bound(images)
    row = {"live": int(metrics.live(kl, LIVE_NATS).sum()), "nats": bound["kl_nats"], "elbo": bound["elbo_nats"]}
    return row | {"kl_by_latent": kl.tolist()}


@part("codes", "vae")
def codes(context: Context, seeds: tuple[int, ...]) -> list[dict]:
    """The mutual information gap of a code, and the mean one of random rotations of its whitened live latents."""
    sizes, whole = context.sizes, context.images()
    exam, recipe = examined(whole, sizes["grid_images"]), sizes["training"]
    recipes = [
        replace(recipe, seed=s, objective=replace(recipe.objective, beta=b)) for b in sizes["betas"] for s in seeds
    ]
    runs = train(context, whole, [(sizes["latent_dim"], own) for own in recipes])
    known = [described(run, whole) | live(run, exam.images.select(slice(0, 5_000))) for run in runs]
    jobs = [
        (code, exam.factors, row["kl_by_latent"], row["seed"], sizes["rotations"])
        for code, row in zip(sweeps.codes(runs, exam.images), known, strict=True)
    ]
    return [row | scores for row, scores in zip(known, side_by_side(gap_and_rotations, jobs), strict=True)]


def gap_and_rotations(means: np.ndarray, factors: np.ndarray, kl: list[float], seed: int, rotations: int) -> dict:
    """MIG of posterior means, and the mean MIG of rotations of the live ones."""
    rotated = rotated_mig(live_codes(means, kl), factors, seed=seed, rotations=rotations)
    return {"mig": metrics.mig(means, factors, seed=seed), "mig_rotated": rotated}

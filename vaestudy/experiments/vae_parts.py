"""The parts of stage 1: noise of gradients, noise samples a step, superfluous latents, and rotations of a code."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaestudy import metrics
from vaestudy.data import ImageSet
from vaestudy.experiments import beta_vae_parts as parts
from vaestudy.experiments.common import pressed, some_rows
from vaestudy.experiments.evidence import Context, part
from vaestudy.experiments.scores import examined, live_codes, threaded
from vaestudy.models import VAE
from vaestudy.training import Job, Run, sweep
from vaestudy.training.run import noise_from

BLOCK = 10  # draws that share a baseline


def gradient_draws(model: VAE, x: Float[Tensor, "n c h w"], draws: int) -> dict[str, Float[Tensor, "draws n p"]]:
    """One-sample gradients of the ELBO by the 2·d variational parameters (mean, log std) of each image.

    All are unbiased for the same gradient and share their noise:
    `estimator B` differentiates a sample and takes the KL in closed form (Kingma & Welling, 2014, eq. 7);
    `estimator A` differentiates log p(x, z) - log q(z|x) at the sample (eq. 6);
    `score function` multiplies that difference by the gradient of log q(z|x) (sec. 2.2), which needs no derivative
    of the decoder;
    `score function, baseline` first takes from each difference the mean of the other nine of a block of ten draws.
    """
    with torch.no_grad():
        mean, log_std, noise, z = model.draw(x, draws)
    std = log_std.exp()
    log_likelihood, slope = torch.empty(z.shape[:2], device=z.device), torch.empty_like(z)
    for rows in torch.arange(draws).split(max(1, 1024 // len(x))):
        part = z[rows].requires_grad_()
        value = model.log_likelihood(part, x)
        log_likelihood[rows], slope[rows] = value.detach(), torch.autograd.grad(value.sum(), part)[0]
    # log q(z|x) at z = mean + std·noise depends on log std alone; log p(z) pulls z back to the origin.
    sampled = torch.cat([slope - z, (slope - z) * std * noise + 1], dim=2)
    analytic = torch.cat([slope - mean, slope * std * noise - std.square() + 1], dim=2)
    gain = log_likelihood + (0.5 * (noise.square() - z.square()) + log_std).sum(2)
    direction = torch.cat([noise / std, noise.square() - 1], dim=2)
    blocks = gain[: draws // BLOCK * BLOCK].reshape(draws // BLOCK, BLOCK, len(x))
    left_out = ((blocks - blocks.mean(1, keepdim=True)) * BLOCK / (BLOCK - 1)).flatten(0, 1)
    found = {"estimator B": analytic, "estimator A": sampled, "score function": gain[:, :, None] * direction}
    return found | {"score function, baseline": left_out[:, :, None] * direction[: len(left_out)]}


def spread(draws: Float[Tensor, "draws n p"], samples: int) -> float:
    """Variance of the mean of `samples` draws, summed over the parameters of an image, mean over images."""
    blocks = draws[: len(draws) // samples * samples].unflatten(0, (-1, samples)).mean(1)
    return float(blocks.var(0).sum(1).mean())


def gradient_spreads(
    run: Run, images: ImageSet, seed: int, draws: int, samples: Sequence[int]
) -> dict[tuple[str, int], float]:
    """`spread` of each estimator over the first 16 images, for several numbers of samples.

    The baseline has none for fewer than ten, since the draws of a block are not independent.
    """
    with noise_from(seed, run.device):
        found = gradient_draws(run.model, images.batch(slice(0, 16)).to(run.device), draws)
    pairs = [(name, count) for name in found for count in samples if count >= BLOCK or "baseline" not in name]
    return {(name, count): spread(found[name], count) for name, count in pairs}


def split(context: Context) -> tuple[ImageSet, ImageSet]:
    """Images to train on and those held out, which the sizes count."""
    images = context.images()
    return images.train_test_split(min(context.sizes["test_images"], len(images) // 2))


def seen(context: Context) -> ImageSet:
    """The images to train on."""
    return split(context)[0]


def smaller_set(context: Context) -> ImageSet:
    """`train_size` of them, drawn at random: the first ones of a grid are all alike."""
    images, count = seen(context), context.sizes["train_size"]
    return images.select(some_rows(images, count), some=count).compact()


def trainings(context: Context, images: ImageSet) -> list[Job]:
    """A model for each seed and, where the sizes have several, each latent size, β and batch (with one and ten noise
    samples an image)."""
    sizes, jobs = context.sizes, []
    batches = itertools.product(sizes.get("batches", ()), (1, 10))
    recipes = [replace(sizes["training"], batch=batch, samples=n) for batch, n in batches] or [sizes["training"]]
    latent_dims, betas = sizes.get("latent_dims", [sizes["latent_dim"]]), sizes.get("betas", [1.0])
    for size, recipe, beta, seed in itertools.product(latent_dims, recipes, betas, context.seeds):
        model = VAE(images.shape, latent_dim=size, seed=seed, **parts.network(sizes))
        jobs.append(Job.below(context.runs_root, "vae", model, images, pressed(recipe, seed, beta=beta)))
    return jobs


@part("gradients", "vae", trainings, seen)
def gradients(context: Context, runs: list[Run]) -> list[dict]:
    """Variance of each gradient estimator of a model after a short training, a noise sample an image."""
    (_, unseen), rows = split(context), []
    for run in runs:
        seed, draws = run.provenance["seed"], context.sizes["gradient_draws"]
        found = gradient_spreads(run, unseen, seed, draws, (1, BLOCK))
        row = parts.described(run) | {"pathwise_variance": found["estimator B", 1]}
        row |= {"estimator_a_variance": found["estimator A", 1]}
        row |= {"score_function_variance": found["score function", 1]}
        rows.append(row | {"baseline_variance": BLOCK * found["score function, baseline", BLOCK]})
    return rows


@part("samples", "vae", trainings, seen)
def samples(context: Context, runs: list[Run]) -> list[dict]:
    """The bound on held-out images after batches of 100 and 10 with one and ten noise samples, at equal images."""
    _, unseen = split(context)
    return [
        parts.described(run) | {"samples": run.recipe["samples"], "elbo": run.bound(unseen)["elbo_nats"]}
        for run in runs
    ]


@part("overfitting", "vae", trainings, smaller_set, version=2)
def overfitting(context: Context, runs: list[Run]) -> list[dict]:
    """The bound on few training images after many epochs, and on others, with few latents and with many."""
    (_, unseen), trained = split(context), smaller_set(context)
    rows = []
    for run in runs:
        bounds = {f"{name}_elbo": run.bound(own)["elbo_nats"] for name, own in (("train", trained), ("test", unseen))}
        rows.append(parts.described(run) | {"train_size": len(trained), **bounds})
    return rows


@part("latents", "vae", trainings, seen)
def latents(context: Context, runs: list[Run]) -> list[dict]:
    """How many latents carry .05 nats or more, of 20 and of 50."""
    return live(runs, split(context)[1])


def live(runs: list[Run], images: ImageSet) -> list[dict]:
    """A row a model: how many of its latents are live, and the nats of its code and its bound."""
    return [{name: value for name, value in row.items() if name != "nll_nats"} for row in parts.rates(runs, images)]


@part("codes", "vae", trainings, version=2)
def codes(context: Context, runs: list[Run]) -> list[dict]:
    """The mutual information gap of a code, and the mean one of random rotations of its whitened live latents."""
    exam = examined(context.images(), context.sizes["grid_images"])
    known = live(runs, exam.images.select(some_rows(exam.images, parts.BOUND_IMAGES)))

    def scored(means: np.ndarray, row: dict) -> dict:
        own, alive = {"factors": exam.factors, "seed": row["seed"]}, live_codes(means, row["kl_by_latent"])
        rotated = metrics.rotation_score(alive, metric=metrics.mig, rotations=context.sizes["rotations"], **own)
        return row | {"mig": metrics.mig(means, **own), "mig_rotated": rotated}

    return threaded(scored, list(zip(sweep.codes(runs, exam.images), known, strict=True)))

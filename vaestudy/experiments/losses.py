"""What pressure takes away, two parts of stage 2: high spatial frequencies, and factors in the order of their worth."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import ndimage
from scipy.stats import kendalltau

from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.experiments import beta_vae_parts as parts
from vaestudy.experiments.common import some_rows
from vaestudy.experiments.evidence import Context, part
from vaestudy.experiments.group_scores import KNOWN_FROM
from vaestudy.experiments.scores import examined, kl_of_some, live_codes, r2_by_factor, score, threaded
from vaestudy.training import Job, Run, sweep

WORTH_IMAGES = 2_000
NUMBERS = 2**26  # pixels whose spectrum is taken at a time: 1 GiB


def of_ten_latents(context: Context, images: ImageSet) -> list[Job]:
    """The sweep over β at 10 latents."""
    return parts.trainings(context, images, parts.grid({**context.sizes, "latent_dims": (10,)}, context.seeds))


def by_beta(runs: list[Run], values: Iterable[Any], seed: int) -> dict[float, tuple[Run, Any]]:
    """The models of one seed, each with its value."""
    own = [pair for pair in zip(runs, values, strict=True) if pair[0].provenance["seed"] == seed]
    return {run.recipe["objective"]["beta"]: (run, value) for run, value in own}


@part("spectra", "beta_vae", of_ten_latents)
def spectra(context: Context, runs: list[Run]) -> list[dict]:
    """A row a sweep: the slope of log(error at its best β > 1 / at β = 1) on log spatial frequency.

    The best β is the one whose code scores highest (Higgins, L = 5) in the sweep itself, at 10 latents; where one
    alone is above 1, nothing is scored. The ratio says how much worse a frequency became; `lost_slope` is that of the
    share of its variance that is lost on top.
    """
    exam = examined(context.images(), context.sizes["grid_images"])
    some = exam.images.select(some_rows(exam.images, parts.BOUND_IMAGES, NUMBERS))
    power, scores = image_spectrum(some), [0.0] * len(runs)
    if sum(beta > 1 for beta in {run.recipe["objective"]["beta"] for run in runs}) > 1:
        codes = sweep.codes(runs, exam.images)
        scores = threaded(score, [(c, exam, run.provenance["seed"], 5) for run, c in zip(runs, codes, strict=True)])

    def slopes(seed: int) -> dict:
        own = by_beta(runs, scores, seed)
        best = max((beta for beta in own if beta > 1), key=lambda beta: own[beta][1])
        plain, pressed = (error_spectrum(own[beta][0], some) for beta in (1.0, best))
        frequency = np.log(np.arange(1, len(plain) + 1))
        row = parts.described(own[1.0][0]) | {"beta": None, "best_beta": best}
        for name, cost in (("error", np.log(pressed / plain)), ("lost", (pressed - plain) / power)):
            row[f"{name}_slope"] = float(np.polyfit(frequency, cost, 1)[0])
        return row | {"plain": (plain / power).tolist(), "pressed": (pressed / power).tolist()}

    return threaded(slopes, [(seed,) for seed in context.seeds])


def lost_by_frequency(rows: pd.DataFrame) -> pd.DataFrame:
    """Records of `spectra`: the share of each frequency (index: cycles) that codes lose, mean over sweeps."""
    shares = {"β = 1": rows["plain"], "the best β": rows["pressed"]}
    means = pd.DataFrame({name: np.mean(losses.tolist(), axis=0) for name, losses in shares.items()})
    return means.set_index(means.index + 1)


@torch.no_grad()
def error_spectrum(run: Run, images: ImageSet) -> Float[np.ndarray, " frequencies"]:
    """Mean power of the error of reconstructions at each whole spatial frequency, 1 to half the side, cycles an image.

    A reconstruction is the mean of p(x|z) at the posterior mean; a frequency holds the ring around it.
    """
    total, batch = 0.0, max(1, min(500, NUMBERS // 8 // images.dims))
    for start in range(0, len(images), batch):
        x = images.batch(slice(start, start + batch)).to(run.device)
        total = total + _power(x - run.model.decode(run.model.encode(x)))
    return _by_ring(total / len(images))


def image_spectrum(images: ImageSet) -> Float[np.ndarray, " frequencies"]:
    """The error that the mean image would make, at the same frequencies: all that there is to code."""
    x = images.batch(slice(None))
    parts = (x - x.mean(0)).split(max(1, NUMBERS // images.dims))
    return _by_ring(sum(map(_power, parts)) / len(images))


def _power(x: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "h w"]:
    return torch.fft.fft2(x.double(), norm="ortho").abs().square().sum((0, 1)).cpu()


def _by_ring(power: Float[torch.Tensor, "h w"]) -> Float[np.ndarray, " frequencies"]:
    height, width = power.shape
    across, down = np.meshgrid(np.fft.fftfreq(width) * width, np.fft.fftfreq(height) * height)
    ring = np.hypot(across, down).round().astype(int)
    return ndimage.mean(power.numpy(), ring, np.arange(1, min(height, width) // 2 + 1))


@part("dropping", "beta_vae", of_ten_latents, version=2)
def dropping(context: Context, runs: list[Run]) -> list[dict]:
    """A row a sweep: Kendall's tau of each factor's worth in nats and the β at which the code drops it."""
    whole = context.images()
    exam, worth = examined(whole, context.sizes["grid_images"]), factor_worth(whole)
    jobs = [
        (live_codes(code, kl_of_some(run, exam.images)), run.provenance["seed"])
        for run, code in zip(runs, sweep.codes(runs, exam.images), strict=True)
    ]
    about = exam.factors, exam.names
    known = threaded(lambda code, seed: [*r2_by_factor(whole.name, code, *about, seed).values()], jobs)
    rows = []
    for seed in context.seeds:
        own = by_beta(runs, known, seed)
        dropped = [dropped_at({beta: r2[k] for beta, (_, r2) in own.items()}) for k in range(len(worth))]
        held = np.array(dropped) > 0  # what no β held was not dropped by pressure
        tau = kendalltau(np.array(dropped)[held], np.array(worth)[held]).statistic if held.sum() > 1 else 0.0
        row = parts.described(next(run for run, _ in own.values())) | {"beta": None}
        row |= {f"dropped_{name}": beta for name, beta in zip(exam.names, dropped, strict=True)}
        row |= {f"worth_{name}": nats for name, nats in zip(exam.names, worth, strict=True)}
        # All factors dropped at one β say nothing of their order.
        rows.append(row | {"worth_tau": 0.0 if np.isnan(tau) else float(tau)})
    return rows


def dropped_at(r2: Mapping[Any, float]) -> float:
    """The β at which R² falls under one half: half-way, in log β, between the last that holds it and the next.

    Which of two factors goes first that both drop there is not known. 0 where R² is below one half at every β, and
    twice the greatest β where it never is.
    """
    betas = sorted(r2)
    read = [place for place, beta in enumerate(betas) if r2[beta] >= KNOWN_FROM]
    if not read:
        return 0.0
    if read[-1] == len(betas) - 1:
        return 2.0 * betas[-1]
    return math.sqrt(betas[read[-1]] * betas[read[-1] + 1])


def factor_worth(images: ImageSet) -> list[float]:
    """The nats of pixel likelihood lost when a factor is shuffled, from the data alone: a mean over combinations.

    Who knows all other factors predicts each pixel by its mean over the values of this one; a Bernoulli pixel then
    costs the entropy of that mean, where its own value cost its own entropy.
    """
    known = images.factors
    if known is None or not known.is_grid:
        raise InputError("what a factor is worth is counted over a full grid of factors")
    drawn = known.values(np.random.default_rng(0).integers(len(images), size=WORTH_IMAGES))
    worth = []
    for k, size in enumerate(known.sizes):
        lost = 0.0
        for rows in np.array_split(drawn, max(1, WORTH_IMAGES * size // 10_000)):
            every = rows.repeat(size, axis=0)
            every[:, k] = np.tile(np.arange(size), len(rows))
            x = images.batch(known.index(every)).double().unflatten(0, (len(rows), size))
            lost += float((_entropy(x.mean(1)) - _entropy(x).mean(1)).sum())
        worth.append(lost / len(drawn))
    return worth


def _entropy(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p) + torch.special.entr(1 - p)

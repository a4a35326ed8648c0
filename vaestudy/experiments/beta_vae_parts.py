"""The parts of stage 2: sweeps over β and what their codes score, beside linear codes and other objectives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vaestudy import metrics
from vaestudy.data import Factors, ImageSet
from vaestudy.experiments import scores
from vaestudy.experiments.common import LEAST_SCORED, some_rows, trained
from vaestudy.experiments.evidence import Context, part
from vaestudy.training import Grid, Job, Run, sweep

DRAWN_IMAGES = BOUND_IMAGES = 5_000
LINEAR_IMAGES, LINEAR_NUMBERS = 20_000, 2**28  # what is fitted on pixels takes so many images, and 1 GiB at most
COMPONENTS = 10


def network(sizes: Any) -> dict[str, Any]:
    """What `VAE` takes beside the shape of the images, the latent size and the seed."""
    return {"width": sizes["width"], "network": sizes["network"], "likelihood": sizes["likelihood"]}


def grid(sizes: Any, seeds: Sequence[int]) -> Grid:
    """The sweep of a row of sizes: β = 1 and a β asked for are always in it."""
    betas = {*sizes["betas"], 1.0, *([sizes["beta"]] if sizes.get("beta") else [])}
    return Grid(betas=tuple(sorted(betas)), latent_dims=sizes["latent_dims"], seeds=tuple(seeds))


def trainings(context: Context, images: ImageSet, *grids: Grid) -> list[Job]:
    """Every model of some grids."""
    how = context.sizes["training"], context.runs_root
    return [job for own in grids for job in own.jobs(images, *how, **network(context.sizes))]


def of_grid(context: Context, images: ImageSet) -> list[Job]:
    """The sweep over β."""
    return trainings(context, images, grid(context.sizes, context.seeds))


def described(run: Run) -> dict[str, Any]:
    """A model's settings as records hold them, its seed and what its training ended at."""
    model = run.model.config
    row = trained(run) | {"network": model.network, "width": model.width, "latent_dim": model.latent_dim}
    return row | {"beta": run.recipe["objective"]["beta"], "precision": run.provenance["precision"]}


def rates(runs: Sequence[Run], images: ImageSet) -> list[dict[str, Any]]:
    """Of each model its settings, the bound on some images with its parts, and how many latents carry .05 nats."""
    rows = []
    for run, bound in zip(runs, sweep.bounds(runs, images), strict=True):
        kl = bound["kl_by_latent"]
        row = {"elbo": bound["elbo_nats"], "nats": bound["kl_nats"], "nll_nats": bound["nll_nats"]}
        row |= {"live": int(metrics.live(np.array(kl)).sum()), "kl_by_latent": kl}
        rows.append(described(run) | row)
    return rows


def scored(context: Context, runs: Sequence[Run]) -> list[dict]:
    """A record a model of a sweep."""
    exam = scores.examined(context.images(), context.sizes["grid_images"])
    some = exam.images.select(some_rows(exam.images, BOUND_IMAGES))
    known, drawn_rows = rates(runs, some), some_rows(exam.images, DRAWN_IMAGES)
    drawn_exam = exam._replace(factors=exam.factors[drawn_rows].repeat(scores.DRAWS, axis=0))
    codes, drawn = sweep.codes(runs, exam.images), sweep.codes(runs, exam.images, drawn_rows, draws=scores.DRAWS)

    def row_of(row: dict, means: np.ndarray, draws: np.ndarray) -> dict:
        about = row["kl_by_latent"], row["seed"]
        of_means = scores.code_scores(means, exam, *about, context.sizes)
        return row | of_means | scores.draw_scores(draws, drawn_exam, *about)

    rows = scores.threaded(row_of, list(zip(known, codes, drawn, strict=True)))
    for run, row in zip(runs, rows, strict=True):
        run.update_record(scores=row)
    return rows


def of_each_size(context: Context, images: ImageSet) -> list[Job]:
    """Sweeps of several latent sizes over one grid in β_norm = β M / N."""
    found = []
    for latents in context.sizes["latent_dims"]:
        betas = [float(f"{norm * images.dims / latents:.6g}") for norm in context.sizes["beta_norms"]]
        found.append(Grid(betas=betas, latent_dims=(latents,), seeds=context.seeds))
    return trainings(context, images, *found)


part("sweep32", "beta_vae", of_grid, version=2)(scored)
part("curve32", "beta_vae", of_grid, version=2)(scored)  # more β at fewer seeds: shown, and judged by no claim
part("faces", "beta_vae", of_grid)(scored)
part("sizes", "beta_vae", of_each_size)(scored)


@part("paper64", "beta_vae", of_grid)
def paper(context: Context, runs: list[Run]) -> list[dict]:
    """The sweep with the score of PCA, fitted anew for each seed, beside each model's."""
    exam = scores.examined(context.images(), context.sizes["grid_images"])
    linear = {seed: linear_scores(exam, metrics.pca, seed)["higgins_5"] for seed in context.seeds}
    return [row | {"pca_higgins_5": linear[row["seed"]]} for row in scored(context, runs)]


@part("ica64", "beta_vae", lambda _context, _images: [])
def independent(context: Context, _runs: list[Run]) -> list[dict]:
    """Fits of ICA, converged or not."""
    whole = context.images()
    exam = scores.examined(whole, context.sizes["grid_images"])
    about = {"data": whole.name, "image_size": whole.shape[1]}
    return [{"seed": seed, **about, **linear_scores(exam, metrics.ica, seed)} for seed in context.seeds]


def pixel_rows(images: ImageSet, seed: int = 0) -> Int[np.ndarray, " m"]:
    """20,000 of some images, for what is fitted on pixels: fewer from a side of 128 on, 100 at least."""
    return some_rows(images, LINEAR_IMAGES, LINEAR_NUMBERS, seed)


def linear_scores(exam: scores.Examined, fit: Any, seed: int) -> dict[str, Any]:
    """Higgins scores of a linear code of the pixels, fitted to `pixel_rows` and scored on all images examined."""
    rows = pixel_rows(exam.images, seed)
    code = fit(exam.images.batch(rows).flatten(1).numpy(), COMPONENTS, seed=seed)
    parts = np.array_split(np.arange(len(exam.images)), max(1, len(exam.images) // 5_000))
    codes = np.concatenate([code.encode(exam.images.batch(rows).flatten(1).numpy()) for rows in parts])
    return scores.higgins(codes, exam, seed, (1, 5, 64)) | {"converged": bool(code.converged)}


def of_each_objective(context: Context, images: ImageSet) -> list[Job]:
    """β-VAE, annealed capacity (Burgess et al., 2018) and β-TCVAE (Chen et al., 2018), each over its own pressure."""
    row, ten = context.sizes, {"latent_dims": (10,), "seeds": context.seeds}
    capacity = Grid(objectives=("capacity",), capacities=row["capacities"], **ten)
    correlation = Grid(objectives=("total_correlation",), betas=row["tc"], **ten)
    return trainings(context, images, Grid(betas=row["betas"], **ten), capacity, correlation)


@part("objectives", "beta_vae", of_each_objective)
def objectives(context: Context, runs: list[Run]) -> list[dict]:
    """The scores of the three objectives; `schedule` names each, and of annealed capacity the nats."""
    rows = []
    for run, record in zip(runs, scored(context, runs), strict=True):
        objective = run.recipe["objective"]
        kind, capacity = objective["kind"], objective["capacity"] if objective["kind"] == "capacity" else None
        schedule = kind if capacity is None else f"{kind} {capacity:g}"
        rows.append(record | {"schedule": schedule, "kind": kind, "capacity": capacity})
    return rows


def regions(context: Context) -> dict[str, ImageSet]:
    """The images without one region of the factor grid, and that region; nothing where a factor alone is known or
    one of the two is too small to score codes by."""
    whole = context.images()
    region = held_out_region(whole.factors)
    if not region:
        return {}
    parts = whole.hold_out(**region)
    return dict(zip(("seen", "new"), parts, strict=True)) if min(map(len, parts)) >= LEAST_SCORED else {}


@part(
    "combinations",
    "beta_vae",
    lambda context, seen: of_grid(context, seen) if seen else [],
    lambda context: regions(context).get("seen"),
)
def combinations(context: Context, runs: list[Run]) -> list[dict]:
    """The sweep without one region of the factor grid, examined inside of it and on as many images outside."""
    rows = [described(run) for run in runs]
    for name, region in regions(context).items():
        exam = scores.region_examined(region.compact(), context.sizes["grid_images"])
        vary = [k for k in exam.classes if len(np.unique(exam.factors[:, k])) > 1]
        kept = scores.paired(exam.factors[:, vary])
        own = scores.Examined(exam.images, exam.factors[kept][:, vary], list(range(len(vary))))
        some = exam.images.select(some_rows(exam.images, BOUND_IMAGES))
        for run, row in zip(runs, rows, strict=True):
            codes, _ = run.codes(exam.images)
            scored = scores.higgins(codes[kept], own, row["seed"], (5,)) if len(vary) > 1 else {}
            row[f"{name}_higgins_5"] = scored.get("higgins_5", float("nan"))
            row[f"{name}_nll_nats"] = run.bound(some)["nll_nats"]
    return rows


def held_out_region(factors: Factors) -> dict[str, list[int]]:
    """What is held out to test new combinations: a last value of the first factor with half of the last one's; nothing
    where one factor alone is known."""
    if len(factors.names) < 2:
        return {}
    first, last = factors.sizes[0], factors.sizes[-1]
    return {factors.names[0]: [first - 1], factors.names[-1]: list(range(last // 2, last))}

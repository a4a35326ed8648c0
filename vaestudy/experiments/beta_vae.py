"""Stage 2: the sweep over β, the score and its controls, and β chosen from few labels or none."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int

from vaestudy import data, metrics, published
from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.experiments import beta_vae_parts as parts
from vaestudy.experiments import common, evidence
from vaestudy.experiments.beta_vae_parts import held_out_region  # noqa: F401 (for the page)
from vaestudy.experiments.common import LEAST_SCORED, checked, image_side, images, runs_root, seeds_from, sizes
from vaestudy.experiments.scores import READ_OUT, Examined, Reports, check_examined, kl_of_some
from vaestudy.experiments.scores import examined as examined_of
from vaestudy.models import VAE
from vaestudy.settings import BetaVAESettings
from vaestudy.training import Grid, Job, Run, distributed, fit_many, sweep
from vaestudy.words import spread

PAPER_MODELS = 10
SWEEPS = ("sweep32", "curve32")
LABELS = {"all labels": "score", "weak labels": "weak_higgins_5"}


def check(settings: BetaVAESettings) -> None:
    """Raise InputError for settings that cannot work together, before any work."""
    info = data.about(settings.dataset, settings.data_dir or None)
    if info.labels == "none":
        where = " (a labels.csv beside the images makes them known)" if info.needs_data_dir else ""
        raise InputError(
            f"no factors are known of {info.name}{where}, and stage 2 scores codes against them: choose dsprites, "
            "faces or another set with labels, or stage 1 or 3"
        )
    shape = checked(settings, image_side(settings), train=LEAST_SCORED)
    if info.known:
        check_examined(info.name, info.known.names, info.known.values(slice(None)))
    with torch.device("meta"):
        VAE(shape, **parts.network(evidence.page_sizes(settings)))


def several_factors(settings: BetaVAESettings) -> bool:
    """Whether two factors or more are known, which the Higgins score tells apart; a class label is one."""
    return len(data.about(settings.dataset, settings.data_dir or None).factors) > 1


def score_title(settings: BetaVAESettings, draws: bool = False) -> str:
    """What figures call the score that the page compares models by."""
    if several_factors(settings):
        return "Higgins of draws, L = 5" if draws else f"Higgins, L = {settings.pairs}"
    return "accuracy of a linear read-out"


def shown_scores(settings: BetaVAESettings) -> dict[str, str]:
    """The columns of `sweep_table` that are shown over β, with their titles."""
    if several_factors(settings):
        return {"score": score_title(settings), "factor_vae": "FactorVAE", "mig": "MIG"}
    return {"score": score_title(settings), f"{READ_OUT}_nats": "information, nats"}


def seeds(settings: BetaVAESettings) -> tuple[int, ...]:
    """The seeds of the models."""
    return seeds_from(settings.seed, settings.seeds or sizes(settings)["seeds"])


def grid(settings: BetaVAESettings) -> Grid:
    """The sweep of β-VAEs that claims are judged by: β = 1 and the β asked for are always in it."""
    return parts.grid(evidence.page_sizes(settings), seeds(settings))


def grids(settings: BetaVAESettings) -> list[Grid]:
    """The sweep, and the one of more β and fewer seeds that completes its curve, if the profile has one."""
    if "curve32" not in sizes(settings)["parts"] or sizes(settings)["pieces"]:
        return [grid(settings)]
    more = evidence.context_of_page(settings, "curve32")
    return [grid(settings), parts.grid(more.sizes, more.seeds)]


train_images = images  # what the models learn from


def jobs(settings: BetaVAESettings, whole: ImageSet) -> dict[str, list[Job]]:
    """Every training of the page: those of the sweep."""
    context = evidence.Context(evidence.page_sizes(settings), settings.data_dir or None, runs_root(settings))
    found = parts.trainings(context, whole, *grids(settings))
    return {"sweep over β": list({job.run_dir: job for job in found}.values())}


def train(settings: BetaVAESettings, whole: ImageSet) -> list[Run]:
    """Train every model of the sweep, or find it trained."""
    return fit_many(jobs(settings, whole)["sweep over β"])


def train_and_score(settings: BetaVAESettings) -> list[Run]:
    """Train the sweep, and put its scores into the records."""
    whole = images(settings)
    examine(settings, whole)  # what cannot be scored is refused before it is trained
    runs = train(settings, whole)
    if distributed.rank() == 0 and not sizes(settings)["pieces"]:
        for name in SWEEPS[: len(grids(settings))]:
            evidence.part_of_page(settings, name)
    return runs


def examine(settings: BetaVAESettings, whole: ImageSet) -> Examined:
    """The images that the scores are taken on."""
    return examined_of(whole, sizes(settings)["grid_images"])


def sweep_table(settings: BetaVAESettings, records: pd.DataFrame, whole: ImageSet) -> pd.DataFrame:
    """A row a model of the sweep from its record: its settings, where its training ended, and its scores.

    Raises:
        InputError: no record of the sweep, or none with the L asked for.
    """
    score = f"higgins_{settings.pairs}" if several_factors(settings) else READ_OUT
    rows = records[records["part"].isin(SWEEPS)].drop_duplicates(["latent_dim", "beta", "seed"])
    if not len(rows) or score not in rows:
        raise InputError(f"no record of the sweep has {score}, the score at L = {settings.pairs}: run its parts first")
    norm = rows["beta"] * rows["latent_dim"] / whole.dims
    return rows.assign(beta_norm=norm, score=rows[score]).reset_index(drop=True)


def members(runs: Sequence[Run], table: pd.DataFrame) -> dict[float, list[Run]]:
    """The models of each β at the latent size of a table, the first ten seeds: as many as the paper's table has."""
    found: dict[float, list[Run]] = {}
    for run in runs:
        if run.model.config.latent_dim == table["latent_dim"].iloc[0]:
            found.setdefault(run.recipe["objective"]["beta"], []).append(run)
    return {beta: alike[:PAPER_MODELS] for beta, alike in sorted(found.items())}


def models_a_beta(runs: Sequence[Run], table: pd.DataFrame) -> str:
    """How many `members` there are of a β, in words."""
    counts = sorted({len(alike) for alike in members(runs, table).values()})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def plain_and_pressed(runs: Sequence[Run], table: pd.DataFrame, beta: float) -> tuple[list[Run], list[Run]]:
    """The `members` of β = 1 and of another β.

    `table` holds the records of one latent size. The model that figures show comes first: the one whose score is in the
    middle of those that have one there. Published records may know neither the seeds nor the β of this page.
    """
    own = members(runs, table)
    if beta not in own:
        raise InputError(f"the page has no model of β = {beta:g}, which its records find best: name one in beta")
    scores = table.set_index(["beta", "seed"])["score"].to_dict()
    return _middle_first(own[1.0], scores), _middle_first(own[beta], scores)


def _middle_first(runs: list[Run], scores: Mapping[tuple[float, int], float]) -> list[Run]:
    """The run whose score, by β and seed, is in the middle of those known, and then the others."""
    known = {run: scores.get((run.recipe["objective"]["beta"], run.recipe["seed"])) for run in runs}
    by_score = sorted((run for run in runs if known[run] is not None), key=known.get)
    shown = by_score[len(by_score) // 2] if by_score else runs[0]
    return [shown, *(run for run in runs if run is not shown)]


def codes_of(examined: Examined, *groups: Sequence[Run]) -> list[list[np.ndarray]]:
    """The posterior means of groups of models."""
    return [sweep.codes(group, examined.images) for group in groups]


def named(name: str, run: Run, examined: Examined) -> str:
    """What a figure calls a model and its code: its β, and how many of its latents are live."""
    live = metrics.live(kl_of_some(run, examined.images)).sum()
    return f"{name} (β = {run.recipe['objective']['beta']:g}, {live} live)"


def choices_of_beta(
    settings: BetaVAESettings, examined: Examined, table: pd.DataFrame, runs: Sequence[Run]
) -> dict[str, dict[float, float]]:
    """What all labels, few labels of two factors, and no labels say of each β (means over seeds).

    `table` holds the records of one latent size, `runs` the models of the page.
    """
    means = {name: table.groupby("beta")[column].mean().to_dict() for name, column in LABELS.items()}
    seen = examined.images.select(some(examined))
    agreement = {}  # how far models that differ by their seed have found the same latents
    for beta, models in members(runs, table).items():
        nats = [kl_of_some(run, examined.images) for run in models]
        agreement[beta] = float(np.median(metrics.udr(sweep.codes(models, seen), nats, seed=settings.seed)))
    return means | {"no labels (UDR)": agreement}


def headline(
    settings: BetaVAESettings, whole: ImageSet, reports: Reports, table: pd.DataFrame, beta: float
) -> list[dict]:
    """The stage's rows on the report's first page, beside the published column.

    Scores are those of `table`, the records of one latent size; `beta` is the one shown as the β-VAE.
    """
    source, name = "Higgins et al. (2017), table 2: best half, L not stated", f"Higgins score, L = {settings.pairs}"
    normed, rows = int(table["latent_dim"].iloc[0]) / whole.dims, []
    published_at = {1.0: ("VAE", "their VAE, β_norm 0.0024"), beta: ("β-VAE", "their β = 4, β_norm 0.0098")}
    if not reports:
        name, published_at = score_title(settings), {}
    for own, models in table.groupby("beta"):
        code, theirs = published_at.get(own, (None, None))
        scores = (100 * models["score"]).tolist()
        ours, beside = spread(np.mean(scores), np.std(scores, ddof=1)), f"{source}; {theirs}" if theirs else None
        quantity = f"{name}, β = {own:g} (β_norm {own * normed:.2g}), %"
        rows.append(common.headline_row(quantity, ours, published.HIGGINS.get(code), beside, values=scores, digits=1))
    for code in ("PCA", "true factors") if reports else ():
        report = reports[code][settings.pairs]
        ours = spread(100 * report.mean, 100 * report.std)
        rows.append(common.headline_row(f"{name}, {code}, %", ours, published.HIGGINS[code], source))
    return rows


def some(examined: Examined) -> Int[np.ndarray, " m"]:
    """Those of the images examined that linear codes are fitted to."""
    return parts.pixel_rows(examined.images)

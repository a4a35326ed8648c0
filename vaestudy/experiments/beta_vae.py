"""Stage 2: the sweep over β, the score and its controls, and β chosen from few labels or none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from scipy.stats import spearmanr

from vaestudy import data, metrics, published
from vaestudy.data import ImageSet
from vaestudy.errors import InputError
from vaestudy.experiments import beta_vae_parts as parts
from vaestudy.experiments import evidence
from vaestudy.experiments.beta_vae_parts import held_out_region  # noqa: F401 (for the page)
from vaestudy.experiments.common import LEAST_SCORED, checked, image_side, images, runs_root, seeds_from, sizes
from vaestudy.experiments.scores import READ_OUT, Examined, check_examined, kl_of_some
from vaestudy.experiments.scores import examined as examined_of
from vaestudy.models import VAE
from vaestudy.settings import BetaVAESettings
from vaestudy.training import Grid, Job, Run, distributed, fit_many
from vaestudy.training import sweep as sweeps
from vaestudy.words import counted, fixed, spread

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
    shape = checked(settings, settings.dataset, image_side(settings), train=LEAST_SCORED)
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
    named = {"beta_norm": rows["beta"] * rows["latent_dim"] / whole.dims, "score": rows[score], "kind": "beta"}
    return rows.assign(**named, kl_nats=rows["nats"]).reset_index(drop=True)


def members(runs: Sequence[Run], latent_dim: int) -> dict[float, list[int]]:
    """Which runs have each β at one latent size, in the order of their seeds."""
    found: dict[float, list[int]] = {}
    for number, run in enumerate(runs):
        if run.model.config.latent_dim == latent_dim:
            found.setdefault(run.recipe["objective"]["beta"], []).append(number)
    return dict(sorted(found.items()))


def by_live_latents(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of models with as many live latents, over β: what a rise owes to latents that switch off."""
    named = table.astype({"live": int}).rename(columns={"live": "live latents", "beta": "β", "mig": "MIG"})
    means = {name: (name, "mean") for name in ("score", "MIG", "nats")}
    return named.groupby(["live latents", "β"]).agg(models=("seed", "size"), **means).reset_index()


def beside_the_rise(table: pd.DataFrame, beta: float) -> list[str]:
    """What stands beside a rise from β = 1 to another β: how many latents are live, and what FactorVAE's score does.

    `table` holds the records of one latent size, which may have no model of one of the two.
    """
    plain, pressed = (table[table["beta"] == each] for each in (1.0, beta))
    if beta == 1 or plain.empty or pressed.empty:
        return []
    usual = {each: int(models["live"].mode().iloc[0]) for each, models in ((1.0, plain), (beta, pressed))}
    (low, first), (high, second) = (
        (usual[each], f"{(models['live'] == usual[each]).sum()} of {len(models)} models of β = {each:g}")
        for each, models in ((1.0, plain), (beta, pressed))
    )
    clauses = [f"{first} have {counted(low, 'live latent')}, {second} have {high}"]
    for live in sorted(set(plain["live"]) & set(pressed["live"])):
        groups = [models.loc[models["live"] == live, "score"] for models in (plain, pressed)]
        scores = " and ".join(f"{fixed(scores.mean(), 2)} ({counted(len(scores), 'model')})" for scores in groups)
        clauses.append(f"with {live:.0f} live the scores are {scores}")
    if len(clauses) == 1:
        clauses.append("no model of the one has as many as one of the other")
    sentences = [f"{'; '.join(clauses)}."]
    if "factor_vae" in table:
        low, high = (fixed(models["factor_vae"].mean(), 2) for models in (plain, pressed))
        sentences.append(f"FactorVAE's score, which no claim is about, is {low} at β = 1 and {high} at β = {beta:g}.")
    return sentences


def factors_known(table: pd.DataFrame) -> pd.DataFrame:
    """R² of each factor (columns) in the codes of each β (rows), mean over seeds."""
    names = [name for name in table if name.startswith("r2_") and table[name].notna().all()]
    return table.groupby("beta")[names].mean().rename(columns=lambda name: name.removeprefix("r2_"))


def plain_and_pressed(runs: Sequence[Run], table: pd.DataFrame, beta: float) -> tuple[list[Run], list[Run]]:
    """Models of β = 1 and of another β, the first ten seeds of each: as many as the paper's table has.

    `table` holds the records of one latent size. The model that figures show comes first: the one whose score is in the
    middle of those that have one there. Published records may know neither the seeds nor the β of this page.
    """
    own = members(runs, int(table["latent_dim"].iloc[0]))
    if beta not in own:
        raise InputError(f"the page has no model of β = {beta:g}, which its records find best: name one in beta")
    scores = table.set_index(["beta", "seed"])["score"].to_dict()
    plain, pressed = (_middle_first([runs[i] for i in own[each][:PAPER_MODELS]], scores) for each in (1.0, beta))
    return plain, pressed


def _middle_first(runs: list[Run], scores: Mapping[tuple[float, int], float]) -> list[Run]:
    """The run whose score, by β and seed, is in the middle of those known, and then the others."""
    known = {run: scores.get((run.recipe["objective"]["beta"], run.recipe["seed"])) for run in runs}
    by_score = sorted((run for run in runs if known[run] is not None), key=known.get)
    shown = by_score[len(by_score) // 2] if by_score else runs[0]
    return [shown, *(run for run in runs if run is not shown)]


def codes_of(examined: Examined, *groups: Sequence[Run]) -> list[list[np.ndarray]]:
    """The posterior means of groups of models."""
    return [sweeps.codes(group, examined.images) for group in groups]


def named(name: str, run: Run, examined: Examined) -> str:
    """What a figure calls a model and its code: its β, and how many of its latents are live."""
    live = metrics.live(kl_of_some(run, examined.images)).sum()
    return f"{name} (β = {run.recipe['objective']['beta']:g}, {live} live)"


def best_beta(table: pd.DataFrame) -> float:
    """The β with the highest mean score, of those with the most seeds."""
    scores = table.groupby("beta")["score"].agg(["mean", "count"])
    return float(scores.loc[scores["count"] == scores["count"].max(), "mean"].idxmax())


def reconstruction_and_score(table: pd.DataFrame) -> dict[str, float | int]:
    """How reconstruction and score go together over the models of one latent size."""
    sharp, good = table.loc[table["nll_nats"].idxmin()], table.loc[table["score"].idxmax()]
    return {
        "count": len(table),
        "correlation": float(spearmanr(-table["nll_nats"], table["score"]).statistic),
        "sharpest_beta": float(sharp["beta"]),
        "sharpest_score": float(sharp["score"]),
        "sharpest_live": int(sharp["live"]),
        "best_beta": float(good["beta"]),
        "best_score": float(good["score"]),
        "best_live": int(good["live"]),
        "paid": float(good["nll_nats"] - sharp["nll_nats"]),
    }


def beside_small_runs(table: pd.DataFrame, beta: float) -> list[dict]:
    """A row a score: ours at one β of the sweep, mean and spread over seeds in percent, beside published runs.

    None for a β of which the records have no model.
    """
    models, rows = table[table["beta"] == beta], []
    seeds = table.groupby("beta").size()
    others = ", ".join(f"{own:g}" for own in seeds.index[seeds == len(models)])
    if models.empty:
        return rows
    for name, title in (("higgins", "Higgins score"), ("factor_vae", "FactorVAE score"), ("mig", "MIG")):
        scores = 100 * models["score" if name == "higgins" else name]
        ours = spread(scores.mean(), scores.std())
        about = (
            f"β = {beta:g}, best by Higgins of {others}; {len(models)} seeds of {models['images'].iloc[0]:,.0f} images"
        )
        rows.append({"score": title, "ours": ours, **published.SMALL_RUNS[name], "our protocol": about})
    return rows


def choices_of_beta(
    settings: BetaVAESettings, examined: Examined, table: pd.DataFrame, runs: Sequence[Run]
) -> dict[str, dict[float, float]]:
    """What all labels, few labels of two factors, and no labels say of each β (means over seeds).

    `table` holds the records of one latent size, `runs` the models of the page.
    """
    means = {name: table.groupby("beta")[column].mean().to_dict() for name, column in LABELS.items()}
    seen = examined.images.select(some(examined))
    own = members(runs, int(table["latent_dim"].iloc[0]))
    agreement = {}  # how far models that differ by their seed have found the same latents
    for beta, numbers in own.items():
        models = [runs[i] for i in numbers[:PAPER_MODELS]]
        nats = [kl_of_some(run, examined.images) for run in models]
        agreement[beta] = float(np.median(metrics.udr(sweeps.codes(models, seen), nats, seed=settings.seed)))
    return means | {"no labels (UDR)": agreement}


def cost_of_choice(chosen: Mapping[str, Mapping[float, float]]) -> dict[str, tuple[float, float]]:
    """For each way to choose: its β, and how far that β's score is below the best one."""
    truth = chosen["all labels"]
    picks = {name: max((beta for beta in scores if beta in truth), key=scores.get) for name, scores in chosen.items()}
    return {name: (beta, max(truth.values()) - truth[beta]) for name, beta in picks.items()}


def combinations_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Records of models trained without one region of the factor grid: a row a model and side of it."""
    if not len(rows):
        return rows
    found = [
        rows[["beta", "seed"]].assign(images=words, nll=rows[f"{name}_nll_nats"], higgins=rows[f"{name}_higgins_5"])
        for name, words in (("seen", "seen"), ("new", "never seen"))
    ]
    return pd.concat(found, ignore_index=True)


def objectives_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Records of the three objectives as the figures name their columns; their rates differ, so draws are scored."""
    if not len(rows):
        return rows
    column = "higgins_5_draws" if "higgins_5_draws" in rows else f"{READ_OUT}_draws"
    return rows.assign(score=rows[column], kl_nats=rows["nats"])


def headline(
    settings: BetaVAESettings,
    whole: ImageSet,
    reports: Mapping[str, Mapping[int, Any]],
    table: pd.DataFrame,
    beta: float,
) -> list[dict]:
    """The stage's rows on the report's first page, beside the published column.

    The scores of each β are those of `table`, the records of one latent size: a number a model, by which another run is
    compared. `beta` is the one shown as the β-VAE.
    """
    source, name = "Higgins et al. (2017), table 2: best half, L not stated", f"Higgins score, L = {settings.pairs}"
    normed, rows = int(table["latent_dim"].iloc[0]) / whole.dims, []
    published_at = {1.0: ("VAE", "their VAE, β_norm 0.0024"), beta: ("β-VAE", "their β = 4, β_norm 0.0098")}
    if not reports:
        name, published_at = score_title(settings), {}
    for own, models in table.groupby("beta"):
        code, theirs = published_at.get(own, (None, None))
        scores = (100 * models["score"]).tolist()
        row = {"quantity": f"{name}, β = {own:g} (β_norm {own * normed:.2g}), %"}
        row |= {"ours": spread(np.mean(scores), np.std(scores, ddof=1)), "published": published.HIGGINS.get(code)}
        rows.append(row | {"source": f"{source}; {theirs}" if theirs else None, "values": scores, "digits": 1})
    for code in ("PCA", "true factors") if reports else ():
        report = reports[code][settings.pairs]
        ours = spread(100 * report.mean, 100 * report.std)
        rows.append(
            {"quantity": f"{name}, {code}, %", "ours": ours, "published": published.HIGGINS[code], "source": source}
        )
    return rows


def some(examined: Examined) -> Int[np.ndarray, " m"]:
    """Those of the images examined that linear codes are fitted to."""
    return parts.pixel_rows(examined.images)

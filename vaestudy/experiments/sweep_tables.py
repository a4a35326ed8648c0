"""The records of stage 2 as its page shows them: tables in, smaller tables and sentences out."""

from collections.abc import Mapping

import pandas as pd
from scipy.stats import spearmanr

from vaestudy import published
from vaestudy.experiments.scores import READ_OUT
from vaestudy.words import counted, fixed, label, spread


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
    low, high = (int(models["live"].mode().iloc[0]) for models in (plain, pressed))
    first, second = (
        f"{(models['live'] == live).sum()} of {len(models)} models of β = {each:g}"
        for each, models, live in ((1.0, plain, low), (beta, pressed, high))
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
    return table.groupby("beta")[names].mean().rename(columns=lambda name: label(name.removeprefix("r2_")))


def order_of_drops(rows: pd.DataFrame) -> list[dict]:
    """Records of `dropping`: a row a factor, by its worth, with the β that it drops at in the sweeps that hold it."""
    columns = [own for own in rows if own.startswith("dropped_") and rows[own].notna().all()] if len(rows) else []
    found = []
    for name in (own.removeprefix("dropped_") for own in columns):
        dropped, worth = rows[f"dropped_{name}"], rows[f"worth_{name}"].mean()
        held = dropped[dropped > 0]
        row = {"factor": label(name), "worth, nats": worth, "dropped at β": held.mean() if len(held) else None}
        found.append(row | {"sweeps that hold it": f"{len(held)} of {len(rows)}"})
    return sorted(found, key=lambda row: row["worth, nats"])


def best_beta(table: pd.DataFrame) -> float:
    """The β with the highest mean score, of those with the most seeds."""
    scores = table.groupby("beta")["score"].agg(["mean", "count"])
    return float(scores.loc[scores["count"] == scores["count"].max(), "mean"].idxmax())


def reconstruction_and_score(table: pd.DataFrame) -> dict[str, float | int]:
    """How reconstruction and score go together over the models of one latent size."""
    sharp, good = table.loc[table["nll_nats"].idxmin()], table.loc[table["score"].idxmax()]
    correlation = float(spearmanr(-table["nll_nats"], table["score"]).statistic)
    found = {"count": len(table), "correlation": correlation}
    for name, model in (("sharpest", sharp), ("best", good)):
        found |= {f"{name}_beta": float(model["beta"]), f"{name}_score": float(model["score"])}
        found[f"{name}_live"] = int(model["live"])
    return found | {"paid": float(good["nll_nats"] - sharp["nll_nats"])}


def beside_small_runs(table: pd.DataFrame, beta: float) -> list[dict]:
    """A row a score: ours at one β of the sweep, mean and spread over seeds in percent, beside published runs.

    None for a β of which the records have no model.
    """
    models, seeds = table[table["beta"] == beta], table.groupby("beta").size()
    if models.empty:
        return []
    others = ", ".join(f"{own:g}" for own in seeds.index[seeds == len(models)])
    about = f"β = {beta:g}, best by Higgins of {others}; {len(models)} seeds of {models['images'].iloc[0]:,.0f} images"
    rows = []
    for name, title in (("higgins", "Higgins score"), ("factor_vae", "FactorVAE score"), ("mig", "MIG")):
        scores = 100 * models["score" if name == "higgins" else name]
        ours = spread(scores.mean(), scores.std())
        rows.append({"score": title, "ours": ours, **published.SMALL_RUNS[name], "our protocol": about})
    return rows


def cost_of_choice(chosen: Mapping[str, Mapping[float, float]]) -> dict[str, float]:
    """The β that all labels (full), few (weak) and none (alone) choose, and how far its score is below the best."""
    truth = next(iter(chosen.values()))
    found = {}
    for name, scores in zip(("full", "weak", "alone"), chosen.values(), strict=True):
        found[name] = max((beta for beta in scores if beta in truth), key=scores.get)
        found[f"{name}_cost"] = max(truth.values()) - truth[found[name]]
    return found


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

"""Figures of stage 2: scores over β, what a score depends on, and what the latents of a β-VAE stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, Integer

from vaestudy.figures import charts, draw
from vaestudy.figures.figure import Figure, Output, statement
from vaestudy.figures.table import Table, table
from vaestudy.words import counted, fixed, spread

__all__ = [
    "factors_over_beta", "information", "latent_responses", "lost_by_frequency", "novelty_table", "objectives",
    "reconstruction_against_score", "score_over_beta", "score_over_pairs", "score_table", "weak_labels",
    "what_pairs_do",
]  # fmt: skip

Curves = Mapping[str, Float[np.ndarray, " pairs"]]  # a score for each number of pairs, by code
Codes = Float[np.ndarray, "n d"]
OBJECTIVES = {"beta": "β-VAE", "capacity": "annealed capacity", "total_correlation": "β-TCVAE"}
ONE_FACTOR = "{what} is about several factors, and of these images one is known: a linear read-out takes its place."
NOT_TRAINED = "This profile does not train {what}, and no published records of them are here: the night profile does."


def score_over_beta(rows: Table, scores: Mapping[str, str], chance: Mapping[str, float]) -> Figure:
    """Scores over β or, where latent sizes differ, over β_norm, a line a size (Higgins et al., 2017, fig. 6).

    `chance` is what guessing scores, for the scores that have such a floor: their ceiling is 1, and all share an axis.
    """
    models = pd.DataFrame(rows).sort_values("latent_dim", kind="stable")
    models["latent size"] = models["latent_dim"].map("M = {:g}".format)
    x = "beta" if models["latent_dim"].nunique() == 1 else "beta_norm"
    best = []
    for name, title in scores.items():
        for m, mean in models.groupby(["latent_dim", "beta"])[name].mean().groupby(level=0):
            best.append(f"{title}, M = {m:g}: best {fixed(mean.max(), 2)} at β = {mean.idxmax()[1]:g}")
    tidy = models.melt(["latent size", "beta", "beta_norm", "seed"], [*scores], "score", "value")
    trained = ", ".join(f"{beta:g}" for beta in sorted(models["beta"].unique()))
    seeds = counted(models["seed"].nunique(), "seed")
    caption = f"Scores over the pressure β: means over up to {seeds}, 95 % intervals where a setting has three or "
    caption += f"more; dots: the {len(models):,} single models. Trained: β = {trained}."
    levels = {name: {"chance": level, "ceiling": 1.0} for name, level in chance.items()}
    axes = {"titles": scores, "levels": levels, "share": set(scores) == set(levels), "ylabel": "score", "height": 3.4}
    alt = "; ".join(best) + "."
    return charts.curves(tidy, x, "value", caption, alt, hue="latent size", panel="score", dots=True, **axes)


def score_over_pairs(curves: Curves, pairs: Sequence[int], chance: float) -> Output:
    """The Higgins score of several codes against the number L of pairs that a difference is averaged over."""
    if not curves:
        return statement(ONE_FACTOR, what="The Higgins score")
    scores = pd.DataFrame(curves, index=list(pairs))
    shown = scores.iloc[[0, len(pairs) // 2, -1]]
    lines = [f"{name}: {', '.join(fixed(score, 2) for score in own)}" for name, own in shown.items()]
    alt = f"Scores at L = {', '.join(map(str, shown.index))}. {'; '.join(lines)}."
    x, y = "pairs L averaged for one difference", "Higgins score"
    caption = "The same codes, examined with different L; one code of each kind."
    return charts.lines(scores, x, "code", y, caption, alt, levels={"": {"chance": chance}}, height=4.2, ylim=(0, 1.04))


def reconstruction_against_score(rows: Table, name: str, title: str, chance: float | None = None) -> Figure:
    """Each model's reconstruction and its score, coloured by β."""
    models = pd.DataFrame(rows).sort_values("beta")
    best = models.loc[models["nll_nats"].idxmin(), name]
    alt = f"The best reconstruction scores {fixed(best, 2)}; the best score is {fixed(models[name].max(), 2)}."
    caption = f"How well each of {counted(len(models), 'model')} reconstructs, and how well it disentangles."
    shown = models[["nll_nats", name]].assign(β=models["beta"].map("{:g}".format))
    return charts.dots(shown, "nll_nats", name, "β", caption, alt, levels={"chance": chance}, ylabel=title)


def factors_over_beta(r2: pd.DataFrame) -> Figure:
    """How much of each factor (columns) a code still holds (see `metrics.knn_r2`), over β (index)."""
    found, halved = r2.max() >= 0.05, r2 < 0.5 * r2.max()
    lost = [f"{n} at β = {halved[n].idxmax():g}" if halved[n].any() else f"{n} never" for n in r2 if found[n]]
    alt = f"Half of what was known is lost: {'; '.join(lost) or 'of no factor'}."
    if not found.all():
        alt += f" Known at no β: {', '.join(r2.columns[~found])}."
    caption = "What the code knows of each factor, read by nearest neighbours wherever it stands in the code; means."
    return charts.lines(r2, "beta", "factor", "R² of the factor", caption, alt, ylim=(-0.03, 1.03))


def lost_by_frequency(shares: pd.DataFrame, models: int) -> Figure:
    """The share of each spatial frequency's variance that is lost (index: cycles an image), a line a code."""
    caption = f"What codes lose of the variance of each spatial frequency, mean of {counted(models, 'sweep')}."
    ends = shares.iloc[[0, -1]].map(lambda share: fixed(share, 2))
    alt = "; ".join(f"{name}: {low} of the lowest, {high} of the highest" for name, (low, high) in ends.items())
    x, y = "spatial frequency, cycles an image", "share lost"
    return charts.lines(shares, x, "code", y, caption, f"Shares lost. {alt}.", ylim=(0, None))


def information(matrices: Mapping[str, Float[np.ndarray, "d k"]], names: Sequence[str]) -> Figure:
    """Mutual information of each latent with each factor, as a share of the factor's entropy."""
    shares, strongest = {}, []
    for title, matrix in matrices.items():
        shares[title] = share = pd.DataFrame(matrix, columns=list(names)).rename("z{}".format)
        strongest.append(f"{title}: " + ", ".join(f"{name} in {latent}" for name, latent in share.idxmax().items()))
    caption = "What each latent tells of each factor: mutual information as a share of the factor's entropy."
    data, alt = pd.concat(shares, names=["code", "latent"]).reset_index(), "; ".join(strongest) + "."
    return charts.heatmaps(shares, "I(z; v) / H(v)", caption, alt, data, height=3.4)


@draw.style()
def latent_responses(codes: Codes, factors: Integer[np.ndarray, "n k"], latents: Any, names: Sequence[str]) -> Figure:
    """Mean of each latent over two factors, and over a third for each value of a fourth (Higgins et al., 2017, fig. 7).

    They are x, y, orientation and shape; where one of them is missing, the three factors of most values and the one of
    least; of fewer than four factors, the mean over each.
    """
    known, shown = pd.DataFrame(factors, columns=list(names)), ("x", "y", "orientation", "shape")
    if not set(shown) <= set(names):
        by_size = known.nunique().sort_values(ascending=False, kind="stable").index
        shown = [*by_size[:3], *by_size[3:][-1:]]
    if len(shown) < 4:
        return _responses_to_few(known, codes, latents, shown)
    across, down, turn, each = shown
    fig, axes = draw.canvas(2, len(latents), width=7.8, height=3.6, sharey="row", squeeze=False)
    swing = []
    for (above, below), latent in zip(axes.T, latents, strict=True):
        z = known.assign(mean=codes[:, latent])
        plane = z.pivot_table(index=down, columns=across, values="mean")
        turned = z.pivot_table(index=turn, columns=each, values="mean")
        charts.heatmap(above, plane, vmin=-2, vmax=2, cmap="coolwarm", ticks=False)
        sns.lineplot(turned, lw=1.3, palette=draw.colours(turned.shape[1]), legend=False, ax=below)
        above.set(title=f"z{latent}", xlabel=across, ylabel="")
        below.set(xticks=[], xlabel=turn)
        swing.append({"latent": f"z{latent}", across: np.ptp(plane.mean(axis=0)), turn: np.ptp(turned, axis=0).max()})
    axes[0, 0].set_ylabel(down)
    axes[1, 0].set_ylabel("mean")
    fig.colorbar(axes[0, -1].collections[0], ax=axes[0], label="mean")
    fig.legend(axes[1, 0].lines, turned.columns, title=each, loc="outside lower center", ncols=len(turned.columns))
    caption = f"Mean of each latent over {across} and {down} (above), and over {turn}, a line for each {each} (below)."
    turning = [row["latent"] for row in swing if row[turn] > 0.5]
    alt = f"Latents that swing with {turn}: {', '.join(turning) or 'none'}."
    return Figure(fig, caption, alt, pd.DataFrame(swing))


def _responses_to_few(known: pd.DataFrame, codes: Codes, latents: Any, shown: Sequence[str]) -> Figure:
    """Mean of each latent over each of one to three factors."""
    latent_codes = pd.DataFrame(codes)[list(latents)].add_prefix("z")
    means = {factor: latent_codes.groupby(known[factor]).mean() for factor in shown}
    tidy = pd.concat([charts.melt(mean, "value", "latent", "mean").assign(factor=name) for name, mean in means.items()])
    swings = pd.DataFrame({name: mean.max() - mean.min() for name, mean in means.items()})
    alt = "; ".join(f"{latent} swings most with {name}" for name, latent in swings.idxmax().sort_index().items()) + "."
    caption = f"Mean of each latent over the values of {', '.join(shown)}."
    return charts.curves(tidy, "value", "mean", caption, alt, hue="latent", panel="factor", log=False, share=True)


def weak_labels(
    chosen: Mapping[str, Mapping[float, float]], chance: float | None = None, weak: float | None = None
) -> Figure:
    """The score of each β as judged by all labels, by few and by none; `chance` and `weak` are what guessing scores."""
    scores = pd.DataFrame(chosen)
    levels = {"all labels": {"chance": chance}, "weak labels": {"chance": weak}}
    tidy = charts.melt(scores, "beta", "judged by", "score")
    alt = "; ".join(f"{name} choose β = {beta:g}" for name, beta in scores.idxmax().items()) + "."
    caption = "The same sweep judged with every label, with a few and with none, each time by a score of its own "
    caption += "(UDR: how far seeds agree): means over seeds."
    return charts.curves(tidy, "beta", "score", caption, alt, panel="judged by", levels=levels)


def objectives(rows: Table, name: str, title: str, chance: float | None = None) -> Output:
    """Score against the rate that each objective ends at: β-VAE, annealed capacity, β-TCVAE."""
    models = pd.DataFrame(rows)
    if not len(models):
        return statement(NOT_TRAINED, what="the three objectives")
    shown = models[["kl_nats", name]].assign(objective=models["kind"].map(OBJECTIVES))
    pressure = models["beta"].where(models["kind"] != "capacity", models.get("capacity"))
    best = shown.groupby(["objective", pressure], sort=False)[name].mean().groupby(level=0, sort=False).max()
    caption = f"{title} against the rate that each of {counted(len(models), 'model')} settled at; three ways to press."
    alt = "Best mean score: " + "; ".join(f"{label} {fixed(value, 2)}" for label, value in best.items()) + "."
    return charts.dots(shown, "kl_nats", name, "objective", caption, alt, levels={"chance": chance}, ylabel=title)


def what_pairs_do(curves: Curves, pairs: Sequence[int], used: int) -> Output:
    """How far L decides: the rotated factors and the code that lacks one, at the L that is used and at the largest."""
    if not curves:
        return statement(ONE_FACTOR, what="The number of pairs L")
    place = int(np.argmin(np.abs(np.array(pairs) - used)))
    (_, whole), (absent, missing), (turned, rotated) = list(curves.items())[:3]
    lost, at = whole[place] - missing[place], f"L = {pairs[place]}"
    beside = f"{abs(lost):.2f} {'below' if lost > 0 else 'above'} the true factors"
    text = (
        f"Entangled codes ({turned}) score {rotated[place]:.2f} at {at} and {rotated[-1]:.2f} at L = {pairs[-1]}, "
        f"where the true factors score {whole[-1]:.2f}. A code {absent} scores {missing[place]:.2f} at {at}, "
        f"{beside if abs(lost) >= 0.005 else 'as the true factors do'}: the score "
        f"{'notices' if lost >= 0.1 else 'hardly notices'} a missing factor. This page uses L = {used} and shows "
        "FactorVAE's score and the mutual information gap beside it."
    )
    data = {"rotated": rotated[[place, -1]], "missing": missing[place], "true": whole[[place, -1]]}
    return statement("{text}", text=text, pairs=pairs[place], **data)


def novelty_table(rows: Table, region: Mapping[str, Sequence[int]]) -> Output:
    """Reconstruction and score on combinations that training saw and on those it did not, means over seeds."""
    if not region:
        return statement(ONE_FACTOR, what="What was never seen together")
    if not len(rows := pd.DataFrame(rows)):
        return statement(NOT_TRAINED, what="models on part of the factor grid")
    scores = {"nll": "reconstruction, nats", "higgins": "Higgins score"}
    by_place = rows.rename(columns=scores).groupby(["beta", "images"], sort=False)[list(scores.values())]
    lines = by_place.agg(lambda v: spread(v.mean(), np.nan_to_num(v.std()), 2)).rename_axis(["β", "combinations"])
    lines = lines.reset_index().sort_values("β", kind="stable")
    spans = {name: dict.fromkeys((min(values), max(values))) for name, values in region.items()}
    held = " and ".join(f"{name} {' to '.join(map(str, span))}" for name, span in spans.items())
    caption = f"Held out of training: all images with {held}. Mean and standard deviation over seeds."
    return table(lines, caption)


def score_table(reports: Mapping[str, Mapping[int, Any]], published: Mapping[str, str]) -> Output:
    """Higgins scores in percent: all scores and the paper's best half, for each L, beside the published column."""
    if not reports:
        return statement(ONE_FACTOR, what="The paper's table of scores")
    most = np.max([report.scores.shape for own in reports.values() for report in own.values()], axis=0)
    rows = []
    for name in dict.fromkeys([*reports, *published]):
        row = {"code": name}
        for pairs, report in reports.get(name, {}).items():
            row[f"L = {pairs}, all"] = spread(100 * report.mean, 100 * report.std)
            row[f"L = {pairs}, best half"] = spread(100 * report.best_mean, 100 * report.best_std)
        rows.append(row | {"published": published.get(name)})
    caption = (
        f"Higgins score in percent, mean and standard deviation over up to {most[0]} models and {most[1]} classifier "
        "seeds each. The published column (Higgins et al., 2017, table 2) keeps the best half and does not state its "
        "L; no score here: not trained."
    )
    return table(rows, caption)

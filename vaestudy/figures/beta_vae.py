"""Figures of stage 2: scores over β, what a score depends on, and what the latents of a β-VAE stand for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, Integer

from vaestudy.errors import InputError
from vaestudy.figures import charts, draw
from vaestudy.figures.figure import Figure, Statement
from vaestudy.figures.table import Table, table

__all__ = [
    "factors_over_beta", "information", "latent_responses", "lost_by_frequency", "novelty_table", "objectives",
    "reconstruction_against_score", "score_over_beta", "score_over_pairs", "score_table", "spread", "weak_labels",
    "what_pairs_do",
]  # fmt: skip

Rows = pd.DataFrame | Iterable[Mapping[str, Any]]  # one trained model a row
OBJECTIVES = {"beta": "β-VAE", "capacity": "annealed capacity", "total_correlation": "β-TCVAE"}


@draw.style()
def score_over_beta(rows: Rows, scores: Mapping[str, str], chance: Mapping[str, float] | None = None) -> Figure:
    """Scores over β and over β_norm, a line for each latent size (Higgins et al., 2017, fig. 6).

    `chance` is the score of guessing, for the scores that have one.
    """
    models = pd.DataFrame(rows).sort_values("latent_dim", kind="stable")
    size = models["latent_dim"].map("M = {}".format)
    look = {"hue": size, "palette": draw.colours(size.nunique())}
    fig, axes = draw.canvas(len(scores), 2, width=7.6, height=2.6 * len(scores), sharey="row", squeeze=False)
    best = []
    for line, (name, title) in zip(axes, scores.items(), strict=True):
        for ax, by in zip(line, ("beta", "beta_norm"), strict=True):
            ax.set_xscale("log")
            draw.curves(ax, models, x=by, y=name, **look)
            sns.scatterplot(models, x=by, y=name, s=9, alpha=0.5, legend=False, ax=ax, **look)
            draw.chance(ax, (chance or {}).get(name))
            ax.set(ylabel=title, xlabel="β_norm = β M / N")
        draw.log_ticks(line[0], models["beta"], "β")
        # Two or three seeds have wide intervals: the axis is for the models, and cuts them.
        seen = [*models[name], (chance or {}).get(name, models[name].iloc[0])]
        line[0].set_ylim(min(seen) - 0.15 * np.ptp(seen) - 1e-3, max(seen) + 0.15 * np.ptp(seen) + 1e-3)
        for m, mean in models.groupby(["latent_dim", "beta"])[name].mean().groupby(level=0):
            best.append(f"{title}, M = {m}: best {mean.max():.2f} at β = {mean.idxmax()[1]:g}")
    draw.legend(fig)
    seeds = draw.counted(models["seed"].nunique(), "seed")
    caption = f"Scores over the pressure β: means and 95 % intervals over {seeds}; dots: the single models."
    return Figure(fig, caption, "; ".join(best) + ".", models)


def score_over_pairs(curves: Mapping[str, Float[np.ndarray, " pairs"]], pairs: Sequence[int], chance: float) -> Figure:
    """The Higgins score of several codes against the number L of pairs that a difference is averaged over."""
    scores = pd.DataFrame(curves, index=list(pairs))
    few = scores.iloc[[0, len(pairs) // 2, -1]]
    lines = [f"{name}: {', '.join(f'{score:.2f}' for score in few[name])}" for name in few]
    alt = f"Scores at L = {', '.join(map(str, few.index))}. {'; '.join(lines)}."
    caption = "The same codes, examined with different L. Dotted: guessing."
    axes = {"x": "pairs L averaged for one difference", "ylabel": "Higgins score", "ylim": (0, 1.02)}
    return charts.lines(scores, caption, alt, chance=chance, height=3.8, **axes)


def reconstruction_against_score(rows: Rows, name: str, title: str, chance: float | None = None) -> Figure:
    """Each model's reconstruction and its score, coloured by β."""
    models = pd.DataFrame(rows).sort_values("beta")
    beta = models["beta"].map("{:g}".format).rename("β")
    best = models.loc[models["nll_nats"].idxmin(), name]
    alt = f"The best reconstruction scores {best:.2f}; the best score is {models[name].max():.2f}."
    caption = "One dot a model: how well it reconstructs, and how well it disentangles."
    axes = {"x": "reconstruction −log p(x|z), nats per image", "y": title, "palette": draw.ramp(beta.nunique())}
    return charts.dots(models, "nll_nats", name, beta, caption, alt, chance=chance, **axes)


def factors_over_beta(known: Mapping[float, Float[np.ndarray, " k"]], names: Sequence[str]) -> Figure:
    """How much of each factor a code still holds (see `metrics.readout`), over β."""
    r2 = pd.DataFrame(known, index=list(names)).T
    found, halved = r2.max() >= 0.05, r2 < 0.5 * r2.max()
    lost = [f"{n} at β = {halved[n].idxmax():g}" if halved[n].any() else f"{n} never" for n in r2 if found[n]]
    alt = f"Half of what was known is lost: {'; '.join(lost) or 'of no factor'}."
    if not found.all():
        alt += f" Known at no β: {', '.join(r2.columns[~found])}."
    caption = "What the code knows of each factor, read by nearest neighbours wherever it stands in the code."
    return charts.lines(r2, caption, alt, x="β", ylabel="R² of the factor", ylim=(-0.03, 1.03))


def lost_by_frequency(shares: pd.DataFrame, models: int) -> Figure:
    """The share of each spatial frequency's variance that is lost (index: cycles an image), a line a code."""
    caption = f"What codes lose of the variance of each spatial frequency, mean of {draw.counted(models, 'sweep')}."
    last = "; ".join(
        f"{name}: {of.iloc[0]:.2f} of the lowest, {of.iloc[-1]:.2f} of the highest" for name, of in shares.items()
    )
    axes = {"x": "spatial frequency, cycles an image", "ylabel": "share lost", "ylim": (0, 1.05)}
    return charts.lines(shares, caption, f"Shares lost. {last}.", **axes)


@draw.style()
def information(matrices: Mapping[str, Float[np.ndarray, "d k"]], names: Sequence[str]) -> Figure:
    """Mutual information of each latent with each factor, as a share of the factor's entropy."""
    fig, axes = draw.canvas(1, len(matrices), width=7.8, height=3.2, squeeze=False, sharey=True)
    strongest = []
    for ax, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        shares = pd.DataFrame(matrix, [f"z{i}" for i in range(len(matrix))], list(names))
        shown = draw.heatmap(ax, shares)
        ax.set(title=title, xlabel="factor")
        ax.tick_params("x", rotation=30)
        ax.tick_params("y", rotation=0)
        strongest.append(f"{title}: " + ", ".join(f"{name} in {latent}" for name, latent in shares.idxmax().items()))
    fig.colorbar(shown, ax=axes[0], label="I(z; v) / H(v)", shrink=0.8)
    caption = "What each latent tells of each factor: mutual information as a share of the factor's entropy."
    return Figure(fig, caption, "; ".join(strongest) + ".", {"factors": names, "information": matrices})


@draw.style()
def latent_responses(
    codes: Float[np.ndarray, "n d"],
    factors: Integer[np.ndarray, "n k"],
    latents: Sequence[int],
    names: Sequence[str],
    shown: Sequence[str] = ("x", "y", "orientation", "shape"),
) -> Figure:
    """Mean of each latent over two factors, and over a third for each value of a fourth (Higgins et al., 2017, fig. 7).

    `shown` names the four; where the data set lacks one of them, its three factors of most values and the one of least.
    """
    known = pd.DataFrame(factors, columns=list(names))
    if not set(shown) <= set(names):
        by_size = known.nunique().sort_values(ascending=False, kind="stable").index
        shown = [*by_size[:3], *by_size[3:][-1:]]
    if len(shown) < 4:
        raise InputError(f"latent_responses needs a data set of 4 known factors or more, not {len(names)}")
    across, down, turn, each = shown
    fig, axes = draw.canvas(2, len(latents), width=7.8, height=3.2, sharey="row", squeeze=False)
    swing = {}
    for place, latent in enumerate(latents):
        z = known.assign(mean=codes[:, latent])
        plane = z.pivot_table(index=down, columns=across, values="mean")
        turned = z.groupby([each, turn])["mean"].mean().unstack(each)
        scale = draw.heatmap(
            axes[0, place], plane, vmin=-2, vmax=2, cmap="coolwarm", xticklabels=False, yticklabels=False
        )
        draw.curves(axes[1, place], turned, markers=False, linewidth=1.2, legend=False)
        axes[0, place].set(title=f"z{latent}", xlabel=across, ylabel="" if place else down)
        axes[1, place].set(xticks=[], xlabel=turn, ylabel="" if place else "mean")
        swing[f"z{latent}"] = {across: np.ptp(plane.mean(axis=0)), turn: np.ptp(turned, axis=0).max()}
    fig.colorbar(scale, ax=axes[0], label="mean")
    fig.legend(axes[1, 0].lines, turned.columns, title=each, loc="outside lower center", ncols=len(turned.columns))
    caption = f"Mean of each latent over {across} and {down} (above), and over {turn}, a line for each {each} (below)."
    turning = [name for name, by in swing.items() if by[turn] > 0.5]
    return Figure(fig, caption, f"Latents that swing with {turn}: {', '.join(turning) or 'none'}.", swing)


def weak_labels(chosen: Mapping[str, Mapping[float, float]], chance: float | None = None) -> Figure:
    """The score of each β as judged by all labels and by few, on one axis."""
    scores = pd.DataFrame(chosen)
    picks = [f"{name} choose β = {beta:g}" for name, beta in scores.idxmax().items()]
    caption = "The same sweep judged with every label and with a few: the mean over seeds."
    return charts.lines(scores, caption, "; ".join(picks) + ".", x="β", ylabel="Higgins score", chance=chance)


def objectives(rows: Rows, name: str, title: str, chance: float | None = None) -> Figure | Statement:
    """Score against the rate that each objective ends at: β-VAE, annealed capacity, β-TCVAE."""
    models = pd.DataFrame(rows)
    if not len(models):
        return _not_trained("the three objectives")
    objective = models["kind"].map(OBJECTIVES).rename("objective")
    pressure = models["beta"].where(models["kind"] != "capacity", models.get("capacity"))
    best = models.groupby([objective, pressure], sort=False)[name].mean().groupby(level=0, sort=False).max()
    caption = f"One dot a model: {title} against the rate that it settled at, for three ways to press."
    alt = "Best mean score: " + "; ".join(f"{label} {value:.2f}" for label, value in best.items()) + "."
    axes = {"x": "KL, nats per image", "y": title}
    return charts.dots(models, "kl_nats", name, objective, caption, alt, chance=chance, **axes)


def what_pairs_do(curves: Mapping[str, np.ndarray], pairs: Sequence[int], used: int) -> Statement:
    """How far L decides: the rotated factors and the code that lacks one, at the L that is used and at the largest."""
    place = int(np.argmin(np.abs(np.array(pairs) - used)))
    (_, whole), (absent, missing), (turned, rotated) = list(curves.items())[:3]
    lost, at = whole[place] - missing[place], f"L = {pairs[place]}"
    text = (
        f"Entangled codes ({turned}) score {rotated[place]:.2f} at {at} and {rotated[-1]:.2f} at L = {pairs[-1]}, "
        f"where the true factors score {whole[-1]:.2f}. A code {absent} scores {missing[place]:.2f} at {at}, "
        f"{lost:.2f} below the true factors: the score {'hardly notices' if lost < 0.1 else 'notices'} a missing "
        f"factor. This page uses L = {used} and shows FactorVAE's score and the mutual information gap beside it."
    )
    data = {"rotated": rotated[[place, -1]], "missing": missing[place], "true": whole[[place, -1]]}
    return Statement(text, text, {"pairs": pairs[place], **data})


def _not_trained(what: str) -> Statement:
    text = f"This profile does not train {what}, and no published records of them are here: the night profile does."
    return Statement(text, text, {"models": 0})


def novelty_table(rows: Rows, region: Mapping[str, Sequence[int]]) -> Table | Statement:
    """Reconstruction and score on combinations that training saw and on those it did not, means over seeds."""
    if not len(rows := pd.DataFrame(rows)):
        return _not_trained("models on part of the factor grid")
    columns = {"beta": "β", "images": "combinations", "nll": "reconstruction, nats", "higgins": "Higgins score"}
    by_place = pd.DataFrame(rows).rename(columns=columns).groupby(["β", "combinations"], sort=False)
    scores = by_place[[*columns.values()][2:]].agg(lambda v: spread(v.mean(), np.nan_to_num(v.std()), 2))
    lines = scores.reset_index().sort_values("β", kind="stable")
    spans = {name: dict.fromkeys((min(values), max(values))) for name, values in region.items()}
    held = " and ".join(f"{name} {' to '.join(map(str, span))}" for name, span in spans.items())
    caption = f"Held out of training: all images with {held}. Mean and standard deviation over seeds."
    return table(lines, caption, formats={"β": "g"})


def score_table(reports: Mapping[str, Mapping[int, Any]], published: Mapping[str, str]) -> Table:
    """Higgins scores in percent: all scores and the paper's best half, for each L, beside the published column."""
    rows = []
    for name in dict.fromkeys([*reports, *published]):
        row = {"code": name}
        for pairs, report in reports.get(name, {}).items():
            row[f"L = {pairs}, all"] = spread(100 * report.mean, 100 * report.std)
            row[f"L = {pairs}, best half"] = spread(100 * report.best_mean, 100 * report.best_std)
        rows.append(row | {"published": published.get(name)})
    caption = (
        "Higgins score in percent, mean and standard deviation over model and classifier seeds. The published column "
        "(Higgins et al., 2017, table 2) keeps the best half and does not state its L; no score here: not trained."
    )
    return table(rows, caption)


def spread(mean: float, std: float, digits: int = 1) -> str:
    """A mean and its standard deviation in words."""
    return f"{mean:.{digits}f} ± {std:.{digits}f}"

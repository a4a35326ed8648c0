"""Figures of stage 2: scores over β, what a score depends on, and what the latents of a β-VAE stand for."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from vaestudy.figures.figure import PALETTE, Figure, Statement, canvas, ramp, style
from vaestudy.figures.table import Table, number, table

Rows = Sequence[Mapping[str, Any]]


def grouped(rows: Rows, name: str, by: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values of `by`, and the mean and standard deviation of `name` at each, over what repeats it."""
    places = np.array(sorted({row[by] for row in rows}))
    values = [np.array([row[name] for row in rows if row[by] == place]) for place in places]
    spread = np.array([v.std(ddof=1) if len(v) > 1 else 0.0 for v in values])
    return places, np.array([v.mean() for v in values]), spread


def _looks() -> Iterator[dict[str, str]]:
    """Colour, marker and line of any number of curves; no two of the first twelve are alike."""
    lines = ["-"] * len(PALETTE) + ["--"] * len(PALETTE)
    for colour, marker, line in itertools.cycle(zip(2 * PALETTE, "os^DvPX<>*ph", lines, strict=True)):
        yield {"color": colour, "marker": marker, "linestyle": line}


@style()
def score_over_beta(rows: Rows, scores: Mapping[str, str]) -> Figure:
    """Scores over β and over β_norm, a line for each latent size (Higgins et al., 2017, fig. 6)."""
    sizes = sorted({row["latent_dim"] for row in rows})
    fig, axes = canvas(len(scores), 2, width=7.6, height=2.6 * len(scores), sharey="row", squeeze=False)
    best = []
    for line, (name, title) in zip(axes, scores.items(), strict=True):
        for ax, by in zip(line, ("beta", "beta_norm"), strict=True):
            for size, colour, marker in zip(sizes, PALETTE, "os^Dv", strict=False):
                own = [row for row in rows if row["latent_dim"] == size]
                place, mean, spread = grouped(own, name, by)
                ax.errorbar(place, mean, spread, color=colour, marker=marker, ms=4, capsize=2, label=f"M = {size}")
                ax.scatter([row[by] for row in own], [row[name] for row in own], s=7, color=colour, alpha=0.5)
                if by == "beta":
                    best.append(f"{title}, M = {size}: best {mean.max():.2f} at β = {place[mean.argmax()]:g}")
            ax.set_xscale("log")
        line[0].set_ylabel(title)
    axes[-1, 0].set_xlabel("β")
    axes[-1, 1].set_xlabel("β_norm = β M / N")
    axes[0, 0].legend()
    seeds = len({row["seed"] for row in rows})
    caption = f"Scores over the pressure β. Bars: standard deviation over {seeds} seeds; dots: the single models."
    return Figure(fig, caption, "; ".join(best) + ".", list(rows))


@style()
def score_over_pairs(curves: Mapping[str, Float[np.ndarray, " pairs"]], pairs: Sequence[int], chance: float) -> Figure:
    """The Higgins score of several codes against the number L of pairs that a difference is averaged over."""
    fig, ax = canvas(height=3.8, width=7.2)
    for (name, curve), look in zip(curves.items(), _looks(), strict=False):
        ax.plot(pairs, curve, ms=4, label=name, **look)
    ax.axhline(chance, color=PALETTE[5], lw=1, ls=":")
    ax.set(xscale="log", xlabel="pairs L averaged for one difference", ylabel="Higgins score", ylim=(0, 1.02))
    fig.legend(loc="outside right center", fontsize=8)
    middle = len(pairs) // 2
    lines = [f"{name}: {curve[0]:.2f}, {curve[middle]:.2f}, {curve[-1]:.2f}" for name, curve in curves.items()]
    alt = f"Scores at L = {pairs[0]}, {pairs[middle]} and {pairs[-1]}. {'; '.join(lines)}."
    caption = "The same codes, examined with different L. Dotted: guessing."
    return Figure(fig, caption, alt, {"pairs": pairs, "scores": curves, "chance": chance})


@style()
def reconstruction_against_score(rows: Rows, name: str, title: str) -> Figure:
    """Each model's reconstruction and its score, coloured by β."""
    fig, ax = canvas(height=3.2)
    betas = sorted({row["beta"] for row in rows})
    for beta, colour in zip(betas, ramp(len(betas)), strict=True):
        own = [row for row in rows if row["beta"] == beta]
        nll, score = [row["nll_nats"] for row in own], [row[name] for row in own]
        ax.scatter(nll, score, s=26, color=colour, label=f"{beta:g}")
    ax.set(xlabel="reconstruction −log p(x|z), nats per image", ylabel=title)
    ax.legend(title="β", ncols=2, fontsize=8)
    nll, score = np.array([row["nll_nats"] for row in rows]), np.array([row[name] for row in rows])
    alt = f"The best reconstruction scores {score[nll.argmin()]:.2f}; the best score is {score.max():.2f}."
    return Figure(fig, "One dot a model: how well it reconstructs, and how well it disentangles.", alt, list(rows))


@style()
def factors_over_beta(known: Mapping[float, Float[np.ndarray, " k"]], names: Sequence[str]) -> Figure:
    """How much of each factor a code still holds (see `metrics.readout`), over β."""
    fig, ax = canvas(height=3.0)
    betas, table = list(known), np.stack(list(known.values()))
    for column, name, look in zip(table.T, names, _looks(), strict=False):
        ax.plot(betas, column, ms=4, label=name, **look)
    ax.set(xscale="log", xlabel="β", ylabel="R² of the factor", ylim=(-0.03, 1.03))
    ax.legend(fontsize=8, ncols=2)
    halves = {
        name: next((b for b, r in zip(betas, c, strict=True) if r < 0.5 * max(c)), None)
        for name, c in zip(names, table.T, strict=True)
    }
    unknown = [name for name, c in zip(names, table.T, strict=True) if max(c) < 0.05]
    lost = "; ".join(
        f"{name} at β = {beta:g}" if beta is not None else f"{name} never"
        for name, beta in halves.items()
        if name not in unknown
    )
    alt = f"Half of what was known is lost: {lost}."
    if unknown:
        alt += f" Known at no β: {', '.join(unknown)}."
    caption = "What the code knows of each factor, read by nearest neighbours wherever it stands in the code."
    data = {"betas": betas, "factors": names, "r2": table, "half_lost_at": halves}
    return Figure(fig, caption, alt, data)


@style()
def information(matrices: Mapping[str, Float[np.ndarray, "d k"]], names: Sequence[str]) -> Figure:
    """Mutual information of each latent with each factor, as a share of the factor's entropy."""
    fig, axes = canvas(1, len(matrices), width=7.8, height=3.2, squeeze=False, sharey=True)
    strongest = []
    for ax, (title, matrix) in zip(axes[0], matrices.items(), strict=True):
        shown = ax.imshow(matrix, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        ax.set(title=title, xlabel="factor")
        ax.set_xticks(range(len(names)), names, rotation=30, fontsize=8)
        ax.set_yticks(range(len(matrix)), [f"z{i}" for i in range(len(matrix))], fontsize=8)
        ax.grid(visible=False)
        strongest.append(f"{title}: " + ", ".join(f"{n} in z{matrix[:, k].argmax()}" for k, n in enumerate(names)))
    fig.colorbar(shown, ax=axes[0], label="I(z; v) / H(v)", shrink=0.8)
    caption = "What each latent tells of each factor: mutual information as a share of the factor's entropy."
    return Figure(fig, caption, "; ".join(strongest) + ".", {"factors": names, "information": matrices})


@style()
def latent_responses(
    codes: Float[np.ndarray, "n d"],
    factors: Integer[np.ndarray, "n k"],
    latents: Sequence[int],
    names: Sequence[str],
    plane: tuple[str, str] = ("x", "y"),
    turn: str = "orientation",
    each: str = "shape",
) -> Figure:
    """Mean of each latent over position, and over orientation for each shape (Higgins et al., 2017, fig. 7)."""
    column = {name: factors[:, names.index(name)] for name in (*plane, turn, each)}
    fig, axes = canvas(2, len(latents), width=7.8, height=3.0, sharey="row", squeeze=False)
    swing = {}
    for place, latent in enumerate(latents):
        z = codes[:, latent]
        across, down = (column[name] for name in plane)
        picture = np.zeros((down.max() + 1, across.max() + 1))
        np.add.at(picture, (down, across), z)
        counts = np.zeros_like(picture)
        np.add.at(counts, (down, across), 1)
        axes[0, place].imshow(picture / counts, cmap="coolwarm", vmin=-2, vmax=2)
        axes[0, place].set(title=f"z{latent}", xticks=[], yticks=[])
        axes[0, place].grid(visible=False)
        curves = []
        for value in np.unique(column[each]):
            own = column[each] == value
            angles, curve = _means(column[turn][own], z[own])
            axes[1, place].plot(angles, curve, lw=1.2, color=PALETTE[value % len(PALETTE)])
            curves.append(curve)
        axes[1, place].set(xticks=[], xlabel=turn)
        swing[f"z{latent}"] = {plane[0]: np.ptp(picture / counts), turn: max(np.ptp(curve) for curve in curves)}
    axes[0, 0].set_ylabel(f"over {plane[0]}, {plane[1]}")
    axes[1, 0].set_ylabel("mean")
    caption = f"Mean of each latent over position (above) and over {turn}, a line for each {each} (below)."
    turning = [name for name, by in swing.items() if by[turn] > 0.5]
    return Figure(fig, caption, f"Latents that swing with {turn}: {', '.join(turning) or 'none'}.", swing)


def _means(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places, where = np.unique(labels, return_inverse=True)
    return places, np.bincount(where, values) / np.bincount(where)


@style()
def weak_labels(chosen: Mapping[str, Mapping[float, float]]) -> Figure:
    """The score of each β as judged by all labels and by few, on one axis."""
    fig, ax = canvas(height=2.8)
    for (name, by_beta), marker in zip(chosen.items(), "os^", strict=False):
        ax.plot(list(by_beta), list(by_beta.values()), marker=marker, ms=4, label=name)
    ax.set(xscale="log", xlabel="β", ylabel="Higgins score")
    ax.legend(fontsize=8)
    picks = [f"{name} choose β = {max(b, key=b.get):g}" for name, b in chosen.items()]
    caption = "The same sweep judged with every label and with a few: the mean over seeds."
    return Figure(fig, caption, "; ".join(picks) + ".", chosen)


@style()
def objectives(rows: Rows, name: str, title: str) -> Figure:
    """Score against the rate that each objective ends at: β-VAE, annealed capacity, β-TCVAE."""
    labels = {"beta": "β-VAE", "capacity": "annealed capacity", "total_correlation": "β-TCVAE"}
    fig, ax = canvas(height=3.0)
    means = {}
    for (kind, label), colour, marker in zip(labels.items(), PALETTE, "os^", strict=False):
        own = [row for row in rows if row["kind"] == kind]
        ax.scatter(
            [row["kl_nats"] for row in own], [row[name] for row in own], color=colour, marker=marker, s=22, label=label
        )
        if own:
            means[label] = max(
                grouped(
                    [{**row, "p": row["beta"] if kind != "capacity" else row["capacity"]} for row in own], name, "p"
                )[1]
            )
    ax.set(xlabel="KL, nats per image", ylabel=title)
    ax.legend(fontsize=8)
    caption = f"One dot a model: {title} against the rate that it settled at, for three ways to press."
    alt = "Best mean score: " + "; ".join(f"{label} {value:.2f}" for label, value in means.items()) + "."
    return Figure(fig, caption, alt, list(rows))


def means(rows: Rows, name: str, by: str = "beta") -> dict[float, float]:
    """The mean of a quantity at each value of `by`."""
    places, mean, _ = grouped(rows, name, by)
    return {float(place): float(value) for place, value in zip(places, mean, strict=True)}


def inverted_u(rows: Rows, name: str) -> Statement:
    """Whether the score rises and then falls over β, in units of the spread between seeds, for each latent size."""
    sentences, found = [], {}
    for size in sorted({row["latent_dim"] for row in rows}):
        betas, mean, spread = grouped([row for row in rows if row["latent_dim"] == size], name, "beta")
        top, noise = int(mean.argmax()), float(np.sqrt((spread**2).mean()))
        rise, fall = float(mean[top] - mean[0]), float(mean[top] - mean[-1])
        words = [f"{'rises' if rise > noise else 'does not clearly rise'} by {rise:.2f} from β = {betas[0]:g}"]
        words.append(f"to {mean[top]:.2f} at β = {betas[top]:g}")
        words.append(f"and {'falls' if fall > noise else 'does not clearly fall'} by {fall:.2f} to β = {betas[-1]:g}")
        sentences.append(f"With {size} latents the score {' '.join(words)} (seeds spread by {noise:.2f}).")
        verdict = rise > noise and fall > noise
        found[size] = {"best_beta": betas[top], "rise": rise, "fall": fall, "spread": noise, "inverted_u": verdict}
    count = sum(f["inverted_u"] for f in found.values())
    sentences.append(f"An inverted U beyond the spread of seeds: {count} of {len(found)} latent sizes.")
    text = " ".join(sentences)
    return Statement(text, text, found)


def optimum_by_size(rows: Rows, name: str) -> Statement:
    """Whether larger latents need more β: the best β of each latent size, as β and as β_norm."""
    best = {}
    for size in sorted({row["latent_dim"] for row in rows}):
        own = [row for row in rows if row["latent_dim"] == size]
        top = max(means(own, name).items(), key=lambda item: item[1])[0]
        best[size] = {"beta": top, "beta_norm": next(row["beta_norm"] for row in own if row["beta"] == top)}
    sizes = list(best)
    parts = [f"{b['beta']:g} (β_norm {number(b['beta_norm'])}) for M = {size}" for size, b in best.items()]
    more = {key: best[sizes[-1]][key] - best[sizes[0]][key] for key in ("beta", "beta_norm")}
    words = {1: "more", 0: "as much", -1: "less"}
    text = f"The best β is {', '.join(parts)}: the largest latent needs {words[int(np.sign(more['beta']))]} β"
    text += f" and {words[int(np.sign(more['beta_norm']))]} β_norm. The paper expects more of both."
    return Statement(text, text, best)


def what_pairs_do(curves: Mapping[str, np.ndarray], pairs: Sequence[int], used: int) -> Statement:
    """How far L decides: the rotated factors and the code that lacks one, at the L that is used and at the largest."""
    place = int(np.argmin(np.abs(np.array(pairs) - used)))
    whole, missing, rotated = list(curves.values())[:3]
    _, absent, turned = list(curves)[:3]
    text = (
        f"Fully entangled codes ({turned}) score {rotated[place]:.2f} at L = {pairs[place]} and {rotated[-1]:.2f} at "
        f"L = {pairs[-1]}, where the true factors score {whole[-1]:.2f}. A code {absent} scores {missing[place]:.2f} "
        f"at L = {pairs[place]}, {whole[place] - missing[place]:.2f} below the true factors: the score "
        f"{'hardly notices' if whole[place] - missing[place] < 0.1 else 'notices'} a missing factor. This page uses "
        f"L = {used} and shows FactorVAE's score and the mutual information gap beside it."
    )
    data = {
        "pairs": pairs[place],
        "rotated": rotated[[place, -1]],
        "missing": missing[place],
        "true": whole[[place, -1]],
    }
    return Statement(text, text, data)


def novelty_table(rows: Rows, region: Mapping[str, Sequence[int]]) -> Table:
    """Reconstruction and score on combinations that training saw and on those it did not, means over seeds."""
    lines = []
    for beta in sorted({row["beta"] for row in rows}):
        for where in dict.fromkeys(row["images"] for row in rows):
            own = [row for row in rows if (row["beta"], row["images"]) == (beta, where)]
            line = {"β": beta, "combinations": where}
            for name, label in (("nll", "reconstruction, nats"), ("higgins", "Higgins score")):
                values = np.array([row[name] for row in own])
                line[label] = spread(values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0, 2)
            lines.append(line)
    spans = {name: dict.fromkeys((min(values), max(values))) for name, values in region.items()}
    held = " and ".join(f"{name} {' to '.join(map(str, span))}" for name, span in spans.items())
    caption = f"Held out of training: all images with {held}. Mean and standard deviation over seeds."
    return table(lines, caption, formats={"β": "g"})


def score_table(reports: Mapping[str, Mapping[int, Any]], published: Mapping[str, str]) -> Table:
    """Higgins scores in percent: all scores and the paper's best half, for each L, beside the published column."""
    rows = []
    for name, by_pairs in reports.items():
        row = {"code": name}
        for pairs, report in by_pairs.items():
            row[f"L = {pairs}, all"] = spread(100 * report.mean, 100 * report.std)
            row[f"L = {pairs}, best half"] = spread(100 * report.best_mean, 100 * report.best_std)
        rows.append(row | {"published": published.get(name)})
    rows += [{"code": name, "published": value} for name, value in published.items() if name not in reports]
    caption = (
        "Higgins score in percent, mean and standard deviation over model and classifier seeds. The published column "
        "(Higgins et al., 2017, table 2) keeps the best half and does not state its L; no score here: not trained."
    )
    return table(rows, caption)


def spread(mean: float, std: float, digits: int = 1) -> str:
    """A mean and its standard deviation in words."""
    return f"{mean:.{digits}f} ± {std:.{digits}f}"

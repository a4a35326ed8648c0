"""Figures of stage 2: scores over β, what a score depends on, and what the latents of a β-VAE stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from vaestudy.figures.figure import PALETTE, Figure, canvas, ramp, style
from vaestudy.figures.table import number

Rows = Sequence[Mapping[str, Any]]


def grouped(rows: Rows, name: str, by: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct values of `by`, and the mean and standard deviation of `name` at each, over what repeats it."""
    places = np.array(sorted({row[by] for row in rows}))
    values = [np.array([row[name] for row in rows if row[by] == place]) for place in places]
    spread = np.array([v.std(ddof=1) if len(v) > 1 else 0.0 for v in values])
    return places, np.array([v.mean() for v in values]), spread


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
                    best.append(f"{title}, M = {size}: best {mean.max():.2f} at β = {number(place[mean.argmax()])}")
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
    for (name, curve), colour, marker in zip(curves.items(), 2 * PALETTE, "os^DvPX<>*"[: len(curves)], strict=False):
        ax.plot(pairs, curve, color=colour, marker=marker, ms=4, label=name)
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
    for column, name, colour, marker in zip(table.T, names, 2 * PALETTE, "os^DvPX<>*"[: len(names)], strict=False):
        ax.plot(betas, column, color=colour, marker=marker, ms=4, label=name)
    ax.set(xscale="log", xlabel="β", ylabel="R² of the factor", ylim=(-0.03, 1.03))
    ax.legend(fontsize=8, ncols=2)
    halves = {
        name: next((b for b, r in zip(betas, c, strict=True) if r < 0.5 * max(c)), None)
        for name, c in zip(names, table.T, strict=True)
    }
    lost = "; ".join(
        f"{name} at β = {beta:g}" if beta is not None else f"{name} never" for name, beta in halves.items()
    )
    caption = "What the code knows of each factor, read by nearest neighbours wherever it stands in the code."
    data = {"betas": betas, "factors": names, "r2": table, "half_lost_at": halves}
    return Figure(fig, caption, f"Half of what was known is lost: {lost}.", data)


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
            angles, curve, _ = _means(column[turn][own], z[own])
            axes[1, place].plot(angles, curve, lw=1.2, color=PALETTE[value % len(PALETTE)])
            curves.append(curve)
        axes[1, place].set(xticks=[], xlabel=turn)
        swing[f"z{latent}"] = {plane[0]: np.ptp(picture / counts), turn: max(np.ptp(curve) for curve in curves)}
    axes[0, 0].set_ylabel(f"over {plane[0]}, {plane[1]}")
    axes[1, 0].set_ylabel("mean")
    caption = f"Mean of each latent over position (above) and over {turn}, a line for each {each} (below)."
    turning = [name for name, by in swing.items() if by[turn] > 0.5]
    return Figure(fig, caption, f"Latents that swing with {turn}: {', '.join(turning) or 'none'}.", swing)


def _means(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places, where = np.unique(labels, return_inverse=True)
    counts = np.bincount(where)
    return places, np.bincount(where, values) / counts, counts


@style()
def weak_labels(chosen: Mapping[str, Mapping[float, float]]) -> Figure:
    """The score of each β as judged by all labels and by few, on one axis."""
    fig, ax = canvas(height=2.8)
    for (name, by_beta), marker in zip(chosen.items(), "os^", strict=False):
        ax.plot(list(by_beta), list(by_beta.values()), marker=marker, ms=4, label=name)
    ax.set(xscale="log", xlabel="β", ylabel="Higgins score")
    ax.legend(fontsize=8)
    picks = [f"{name} choose β = {number(max(b, key=b.get))}" for name, b in chosen.items()]
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

"""Figures of stage 3: the architecture, what each latent group does, and what β does to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor

from vaestudy.figures.figure import INK, PALETTE, Figure, Statement, canvas, ramp, show_images, style
from vaestudy.figures.table import number

Rows = Sequence[Mapping[str, Any]]


@style()
def architecture(config: Any) -> Figure:
    """Both towers of an NVAE, drawn from its configuration: sizes of maps, channels and latents (NVAE, fig. 2)."""
    shapes, scales = config.group_shapes, config.scale_of_group
    widths = [config.width(config.blocks + len(config.groups) - 1 - scale) for scale in scales]
    rows = list(zip(shapes, widths, strict=True))
    fig, ax = canvas(width=6.6, height=1.6 + 0.42 * len(rows))
    ax.set(xlim=(-0.5, 10.5), ylim=(-1.3, len(rows) + 0.9))
    ax.set_axis_off()
    for place, ((latents, height, width), channels) in enumerate(rows):
        y = len(rows) - 1 - place
        _box(ax, 0, y, 2.8, f"{channels} × {height} × {width}", PALETTE[0])
        _box(ax, 4, y, 2.4, f"z{place + 1}: {latents} × {height} × {width}", PALETTE[1])
        _box(ax, 7.6, y, 2.8, f"{channels} × {height} × {width}", PALETTE[2])
        _arrow(ax, (2.8, y + 0.3), (4, y + 0.3))
        _arrow(ax, (7.6, y + 0.42), (6.4, y + 0.42))
        _arrow(ax, (6.4, y + 0.18), (7.6, y + 0.18))
        if place:
            _arrow(ax, (1.4, y + 0.6), (1.4, y + 1))
            _arrow(ax, (9, y + 1), (9, y + 0.6))
    c, h, w = config.shape
    for x, words in ((0, f"image {c} × {h} × {w}"), (7.6, "p(x|z)")):
        _box(ax, x, -1.1, 2.8, words, PALETTE[5])
    _arrow(ax, (1.4, -0.5), (1.4, 0))
    _arrow(ax, (9, 0), (9, -0.5))
    titles = ((1.4, "bottom-up, reads"), (5.2, "latent groups"), (9, "top-down, generates"))
    for x, words in titles:
        ax.text(x, len(rows) + 0.25, words, ha="center", color=INK)
    total = sum(int(np.prod(shape)) for shape in shapes)
    caption = f"{len(rows)} latent groups, {total:,} latent variables. Channels × height × width of the maps."
    top, last = (" × ".join(map(str, shape)) for shape in (shapes[0], shapes[-1]))
    alt = f"Two towers joined by {len(rows)} latent groups, from {top} at the top to {last} at the bottom."
    return Figure(fig, caption, alt, {"group_shapes": shapes, "widths": widths})


def _box(ax: Any, x: float | int, y: float | int, width: float, words: str, colour: str) -> None:
    ax.add_patch(FancyBboxPatch((x, y), width, 0.6, boxstyle="round,pad=0,rounding_size=0.1", fc="none", ec=colour))
    ax.text(x + width / 2, y + 0.3, words, ha="center", va="center", fontsize=8.5, color=INK)


def _arrow(ax: Any, start: tuple[float | int, float | int], end: tuple[float | int, float | int]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=INK, lw=0.9))


@style()
def kl_by_group(runs: Mapping[str, Sequence[np.ndarray]], active_above: float = 0.1) -> Figure:
    """KL of each latent group (n, z, h, w), and how many of its channels carry more than `active_above` nats."""
    fig, axes = canvas(1, 2, width=7.6, height=2.8)
    found = {}
    for place, (name, groups) in enumerate(runs.items()):
        channels = [group.sum((2, 3)).mean(0) for group in groups]
        kl = np.array([c.sum() for c in channels])
        active = np.array([(c > active_above).sum() for c in channels])
        where = np.arange(len(kl)) + (place - (len(runs) - 1) / 2) * 0.8 / len(runs)
        for ax, heights in zip(axes, (kl, active), strict=True):
            ax.bar(where, heights, width=0.8 / len(runs), label=name, color=PALETTE[place % len(PALETTE)])
        found[name] = {"kl_nats": kl, "active_channels": active, "channels": [len(c) for c in channels]}
    shapes = [" × ".join(map(str, group.shape[1:])) for group in next(iter(runs.values()))]
    for ax, title in zip(axes, ("KL, nats per image", "active channels"), strict=True):
        ax.set(title=title, xlabel="latent group, top first")
        ax.set_xticks(range(len(shapes)), [f"{i + 1}\n{shape}" for i, shape in enumerate(shapes)], fontsize=7)
    axes[0].legend(fontsize=8)
    lines = [f"{name}: {', '.join(f'{v:.1f}' for v in f['kl_nats'])} nats" for name, f in found.items()]
    caption = f"What each latent group costs. A channel is active above {active_above:g} nats, summed over its map."
    return Figure(fig, caption, "; ".join(lines) + ".", found)


@style()
def picture_rows(rows: Mapping[str, Tensor], caption: str, data: Any = None) -> Figure:
    """Named rows of images (n, c, h, w), one beneath the other."""
    count = len(next(iter(rows.values())))
    fig, axes = canvas(len(rows), 1, width=7.2, height=len(rows) * 7.2 / (count + 1.5), squeeze=False)
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        show_images(ax, images, count)
        ax.text(-0.01, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8.5)
    alt = f"{len(rows)} rows of {count} images: {', '.join(rows)}."
    return Figure(fig, caption, alt, {"rows": list(rows)} if data is None else data)


@torch.no_grad()
def samples_by_temperature(
    model: Any, temperatures: Sequence[float], count: int = 10, passes: int = 10, seed: int = 0
) -> Figure:
    """Samples at several temperatures, batch norm statistics gathered anew at each (NVAE, sec. 4.2)."""
    rows = {}
    with torch.random.fork_rng():
        for temperature in temperatures:
            torch.manual_seed(seed)
            replaced = model.reestimate_batch_norm(passes, 100, temperature)
            rows[f"t = {temperature:g}"] = model.sample(count, temperature)
            model.load_state_dict(replaced, strict=False)
    finite = all(bool(torch.isfinite(images).all()) for images in rows.values())
    caption = (
        "Samples: every standard deviation times t. Means of p(x|z), batch norm statistics re-estimated at each t."
    )
    return picture_rows(rows, caption, {"temperatures": temperatures, "finite": finite})


@torch.no_grad()
def below_a_fixed_top(model: Any, x: Tensor, count: int = 8, temperature: float = 0.7, seed: int = 0) -> Figure:
    """One image, its top groups kept and the groups below drawn anew: what each level decides (NVAE, fig. 5)."""
    latents, rows = model.encode(x[:1]), {}
    with torch.random.fork_rng():
        for keep in range(1, len(latents) + 1):
            torch.manual_seed(seed)
            fixed = [group.expand(count, -1, -1, -1) for group in latents]
            drawn = model.sample(count, temperature, fixed_top=fixed, keep=keep)
            rows[f"{keep} of {len(latents)} kept"] = torch.cat([x[:1], drawn])
    caption = "First column: an image. Its top groups are kept, the groups below drawn anew from the prior."
    return picture_rows(rows, caption)


@torch.no_grad()
def interpolation(model: Any, x: Tensor, count: int = 9) -> Figure:
    """Straight lines between the latents of pairs of images, in all groups at once."""
    rows = {}
    for pair in range(len(x) // 2):
        ends = model.encode(x[2 * pair : 2 * pair + 2])
        steps = torch.linspace(0, 1, count, device=x.device)[:, None, None, None]
        path = [start + steps * (end - start) for start, end in (group.split(1) for group in ends)]
        rows[f"pair {pair + 1}"] = torch.cat([x[2 * pair, None], model.decode(path), x[2 * pair + 1, None]])
    caption = "Between two images: the ends are originals, the rest decoded along a straight line through all groups."
    return picture_rows(rows, caption)


@torch.no_grad()
def reconstructions_by_depth(model: Any, x: Tensor) -> Figure:
    """Images rebuilt from their top groups alone, the groups below set to the means of their priors."""
    depths = range(1, len(model.group_shapes) + 1)
    rows = {"original": x} | {f"top {g} of {depths[-1]}": model.reconstruct(x, groups=g) for g in depths}
    errors = {name: float((images - x).square().mean()) for name, images in rows.items()}
    caption = "Held-out images, and what their top groups alone say of them."
    return picture_rows(rows, caption, {"mean_squared_error": errors})


@torch.no_grad()
def nearest_in_training(samples: Tensor, images: Any, batch: int = 2000) -> Figure:
    """Samples above the training images that are nearest to them, pixel by pixel: copied or made?"""
    flat = samples.flatten(1)
    best, index = torch.full((len(flat),), np.inf), torch.zeros(len(flat), dtype=torch.long)
    for start in range(0, len(images), batch):
        x = images.batch(slice(start, start + batch)).to(flat.device).flatten(1)
        near, where = torch.cdist(flat, x).min(1)
        near, where = near.cpu(), where.cpu()
        closer = near < best
        best, index = torch.where(closer, near, best), torch.where(closer, where + start, index)
    distances = (best / flat.shape[1] ** 0.5).numpy()
    rows = {"sample": samples, "nearest": images.batch(index)}
    caption = f"Samples and their nearest training images; root mean squared difference {distances.mean():.3f} a value."
    return picture_rows(rows, caption, {"index": index, "root_mean_squared_difference": distances})


@style()
def score_by_group(rows: Rows, scores: Mapping[str, str]) -> Figure:
    """Scores of the pooled code of each latent group, a line for each β, the flat VAE as a level."""
    betas = sorted({row["beta"] for row in rows if row["model"] == "NVAE"})
    groups = [row["group"] for row in rows if row["model"] == "NVAE" and row["beta"] == betas[0]]
    fig, axes = canvas(1, len(scores), width=7.6, height=3.0, squeeze=False)
    for ax, (name, title) in zip(axes[0], scores.items(), strict=True):
        for beta, colour in zip(betas, ramp(len(betas)), strict=True):
            own = [row[name] for row in rows if row["model"] == "NVAE" and row["beta"] == beta]
            ax.plot(range(len(groups)), own, marker="o", ms=4, color=colour, label=f"NVAE, β = {beta:g}")
        flat = [row for row in rows if row["model"] != "NVAE"]
        for row, line in zip(flat, ("--", ":", "-."), strict=False):
            ax.axhline(row[name], color=PALETTE[5], ls=line, lw=1.2, label=row["model"])
        ax.set_xticks(range(len(groups)), groups)
        ax.set(title=title, xlabel="latent group, top first")
    axes[0, 0].legend(fontsize=7.5)
    best = {name: max(rows, key=lambda row, name=name: row[name]) for name in scores}
    named = [
        f"{scores[n]}: {number(row[n])} for {row['model']}, β = {row['beta']:g}, group {row['group']}"
        for n, row in best.items()
    ]
    caption = "How well the pooled code of each latent group separates the known factors, by β."
    return Figure(fig, caption, "Best " + "; ".join(named) + ".", list(rows))


def does_beta_disentangle(rows: Rows, name: str, title: str) -> Statement:
    """The question of the study, answered from the scores: group by group, β against 1."""
    nvae = [row for row in rows if row["model"] == "NVAE"]
    betas = sorted({row["beta"] for row in nvae})
    score = {(row["beta"], row["group"]): row[name] for row in nvae}
    groups = list(dict.fromkeys(row["group"] for row in nvae))
    parts, gains = [], {}
    for beta in betas:
        if beta == 1:
            continue
        gains[beta] = {group: score[beta, group] - score[1.0, group] for group in groups}
        words = ", ".join(f"{gain:+.3f} in group {group}" for group, gain in gains[beta].items())
        parts.append(f"Against β = 1, β = {beta:g} changes the {title} by {words}.")
    if gains:
        best = max(((beta, group) for beta in gains for group in groups), key=lambda key: gains[key[0]][key[1]])
        gain = gains[best[0]][best[1]]
        parts.append(
            f"The largest gain is {gain:+.3f}, at β = {best[0]:g} in group {best[1]}."
            if gain > 0
            else "No group gains."
        )
    flat = [row for row in rows if row["model"] != "NVAE"]
    if flat:
        top, level = max(nvae, key=lambda row: row[name]), max(flat, key=lambda row: row[name])
        relation = "above" if top[name] > level[name] else "not above"
        parts.append(f"The best group scores {top[name]:.3f}, {relation} the {level['model']} ({level[name]:.3f}).")
    parts.append("One seed each: differences of a few hundredths are within the spread that stage 2 shows.")
    text = " ".join(parts)
    return Statement(text, text, {"gains": gains})

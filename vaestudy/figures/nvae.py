"""Figures of stage 3: the architecture, what each latent group does, and in which of them the code is."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vaestudy.figures import charts, draw
from vaestudy.figures.figure import Figure, Output, statement
from vaestudy.training.run import noise_from
from vaestudy.words import GROUPS, counted, fixed, listed

__all__ = [
    "architecture", "below_a_fixed_top", "interpolation", "kl_by_group", "nats_by_group", "nearest_in_training",
    "reconstructions_by_depth", "samples_by_temperature", "where_the_code_gathers",
]  # fmt: skip

ACTIVE_ABOVE = 0.1  # nats of a channel, summed over its map


@draw.style()
def architecture(config: Any) -> Figure:
    """Both towers of an NVAE, drawn from its configuration: sizes of maps, channels and latents (NVAE, fig. 2)."""
    shapes, count = config.group_shapes, len(config.group_shapes)
    widths = [config.width(halvings) for halvings in config.halvings_of_group]
    sizes = [" × ".join(map(str, shape)) for shape in (*shapes, config.shape)]
    maps = [f"{width} × {h} × {w}" for width, (_, h, w) in zip(widths, shapes, strict=True)]
    columns = [
        ("bottom-up, reads", 0, 2.8, [*maps, f"image {sizes[-1]}"]),
        ("latent groups", 4, 2.4, [f"z{i}: {size}" for i, size in enumerate(sizes[:-1], 1)]),
        ("top-down, generates", 7.6, 2.8, [*maps, "p(x|z)"]),
    ]
    fig, ax = draw.canvas(width=6.6, height=1.2 + 0.42 * count)
    for (title, left, width, words), colour in zip(columns, draw.PALETTE, strict=False):
        boxes = ax.barh([-i for i in range(len(words))], width, 0.6, left=left, fc="none", ec=colour, lw=1.4)
        ax.bar_label(boxes, words, label_type="center", fontsize=draw.SMALLEST)
        ax.text(left + width / 2, 0.6, title, ha="center")
    across = [((2.8, 0), (4, 0)), ((7.6, 0.12), (6.4, 0.12)), ((6.4, -0.12), (7.6, -0.12))]
    down = [((1.4, -0.7), (1.4, -0.3)), ((9, -0.3), (9, -0.7))]
    look = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": draw.INK}
    for ((x, y), (to_x, to_y)), row in itertools.product(across + down, range(count)):
        ax.annotate("", (to_x, to_y - row), (x, y - row), arrowprops=look)
    ax.margins(0.01)
    ax.set_axis_off()
    groups, total = counted(count, "latent group"), sum(map(math.prod, shapes))
    caption = f"{groups}, {counted(total, 'latent variable')}. Channels × height × width of the maps."
    alt = f"Two towers joined by {groups}, from {sizes[0]} at the top to {sizes[-2]} at the bottom."
    return Figure(fig, caption, alt, {"group_shapes": shapes, "widths": widths})


def kl_by_group(runs: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """KL of each latent group (n, z, h, w), and how many of its channels carry more than `ACTIVE_ABOVE` nats."""
    place, kl, active = "latent group, top first", "KL, nats per image", "active channels"
    rows = []
    for name, groups in runs.items():
        for i, group in enumerate(groups, 1):
            channels = group.sum((2, 3)).mean(0)
            about = {"model": name, place: f"{i}\n{' × '.join(map(str, group.shape[1:]))}"}
            rows.append({**about, kl: channels.sum(), active: int((channels > ACTIVE_ABOVE).sum())})
    data = pd.DataFrame(rows)
    nats_of = data.groupby("model", sort=False)[kl].agg(lambda nats: ", ".join(fixed(v, 1) for v in nats))
    alt = "; ".join(f"{name}: {nats} nats" for name, nats in nats_of.items()) + "."
    caption = f"What each latent group costs. A channel is active above {ACTIVE_ABOVE:g} nats, summed over its map."
    return charts.bars(data, place, [kl, active], "model", caption, alt)


@torch.no_grad()
def samples_by_temperature(
    model: Any, temperatures: Sequence[float], name: str, count: int = 10, passes: int = 10
) -> Figure:
    """Samples of the model of this name at several temperatures, batch norm statistics gathered anew (sec. 4.2)."""
    rows, device = {}, next(model.parameters()).device
    for temperature in temperatures:
        with noise_from(0, device), model.reestimated_batch_norm(passes, 100, temperature):
            rows[f"t = {temperature:g}"] = model.sample(count, temperature)
    finite = all(bool(torch.isfinite(images).all()) for images in rows.values())
    caption = f"Samples, {name}: every standard deviation times t. "
    caption += "Means of p(x|z), batch norm statistics re-estimated at each t."
    return charts.image_rows(rows, caption, {"temperatures": temperatures, "finite": finite})


@torch.no_grad()
def below_a_fixed_top(model: Any, x: Tensor, count: int = 8, temperature: float = 0.7) -> Figure:
    """One image, its top groups kept and the groups below drawn anew: what each level decides (NVAE, fig. 5)."""
    latents, rows = model.encode(x[:1]), {}
    for keep in range(1, len(latents) + 1):
        with noise_from(0, x.device):
            drawn = model.sample(count, temperature, fixed_top=latents, keep=keep)
        rows[f"{keep} of {len(latents)} kept"] = torch.cat([x[:1], drawn])
    caption = "First column: an image. Its top groups are kept, the groups below drawn anew from the prior."
    return charts.image_rows(rows, caption)


@torch.no_grad()
def interpolation(model: Any, x: Tensor, count: int = 9) -> Figure:
    """Straight lines between the latents of pairs of images, in all groups at once."""
    rows, steps = {}, torch.linspace(0, 1, count, device=x.device)[:, None, None, None]
    for number, pair in enumerate(x[: len(x) // 2 * 2].split(2), 1):
        ends = (group.split(1) for group in model.encode(pair))
        path = [start + steps * (end - start) for start, end in ends]
        rows[f"pair {number}"] = torch.cat([pair[:1], model.decode(path), pair[1:]])
    caption = "Between two images: the ends are originals, the rest decoded along a straight line through all groups."
    return charts.image_rows(rows, caption)


@torch.no_grad()
def reconstructions_by_depth(model: Any, x: Tensor) -> Figure:
    """Images rebuilt from their top groups alone, the groups below set to the means of their priors."""
    latents, rows = model.encode(x), {"original": x}
    for keep in range(1, len(latents) + 1):
        rows[f"top {keep} of {len(latents)}"] = model.sample(len(x), 0.0, fixed_top=latents, keep=keep)
    errors = {name: float((images - x).square().mean()) for name, images in rows.items()}
    caption = "Held-out images, and what their top groups alone say of them."
    return charts.image_rows(rows, caption, {"mean_squared_error": errors})


@torch.no_grad()
def nearest_in_training(samples: Tensor, images: Any, batch: int = 2000) -> Figure:
    """Samples above the training images that are nearest to them, pixel by pixel: copied or made?"""
    flat = samples.flatten(1)
    starts = range(0, len(images), batch)
    parts = (images.batch(slice(start, start + batch)).to(flat.device).flatten(1) for start in starts)
    nearest, index = torch.cat([torch.cdist(flat, part) for part in parts], 1).min(1)
    index, distances = index.cpu(), (nearest / flat.shape[1] ** 0.5).cpu().numpy()
    rows = {"sample": samples, "nearest": images.batch(index)}
    caption = f"Samples and their nearest training images; root mean squared difference {distances.mean():.3f} a value."
    return charts.image_rows(rows, caption, {"index": index, "root_mean_squared_difference": distances})


def nats_by_group(records: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Where the code is: nats of each group over β, a panel a schedule (its title); means with 95 % intervals.

    `records`: a row a model with schedule, beta, seed, nats, top_nats, second_nats and third_nats.
    """
    nats = records.rename(columns={f"{group}_nats": group for group in GROUPS})
    tidy = nats.melt(["schedule", "beta", "seed"], list(GROUPS), "latent group", "nats per image")
    means = nats.groupby(["schedule", "beta"])[list(GROUPS)].mean().map(lambda mean: fixed(mean, 1))
    parts = []
    for schedule in (name for name in titles if name in means.index):
        (low, first), *_, (high, last) = means.loc[schedule].agg("/".join, axis=1).items()
        parts.append(f"{titles[schedule]}: at β = {low:g} and {first}, at β = {high:g} {last}")
    seeds = int(records["seed"].nunique())
    caption = "Nats of the top, second and third latent group by β and by what is charged in the warm-up; means"
    caption += f"{' and 95 % intervals' if seeds >= charts.LEAST else ''} over {counted(seeds, 'seed')} a setting."
    axes = {"hue": "latent group", "panel": "schedule", "titles": titles, "share": True, "ylim": (0, None)}
    alt = f"Nats top/second/third. {'; '.join(parts)}."
    return charts.curves(tidy, "beta", "nats per image", caption, alt, **axes)


def where_the_code_gathers(records: pd.DataFrame, schedules: Mapping[str, str], whose: str) -> Output:
    """What the models of the highest β show: the top group's share of the nats, and how the top group then scores.

    Its data hold the sentences too, for the answer of a page that tests no claim about these models. `records`: as for
    `nats_by_group`, with top_live, top_higgins_5_draws, top_higgins_5_rotated and higgins_chance; of one group alone,
    those without a schedule, with higgins_5_draws. `schedules`: what each charges. `whose` records they are.
    """
    seeds = records.groupby(["network", "schedule", "beta"], dropna=False)["seed"].nunique().min()
    shares = (records["top_nats"] / records["nats"]).groupby([records["schedule"], records["beta"]]).mean().unstack()
    low, high = 1.0, shares.columns.max()
    shares = shares.loc[[name for name in schedules if name in shares.index]].sort_values(high, ascending=False)
    held = [f"{fixed(row[high], 2)} ({fixed(row[low], 2)}) {schedules[name]}" for name, row in shares.iterrows()]
    top = records[(records["schedule"] == shares.index[0]) & (records["beta"] == high) & (records["top_live"] > 0)]
    draws, rotated = top["top_higgins_5_draws"], top["top_higgins_5_rotated"]
    above, single = (draws > rotated + 1e-9).sum(), (top["top_live"] == 1).sum()  # up to rounding
    own = records[records["network"] == "one group"]
    flat = own.groupby("beta")["higgins_5_draws"].mean() if len(own) else {}
    beside = ""
    if single:
        beside = f" ({single} {'has' if single == 1 else 'have'} one live latent, which no rotation changes)"
    if high in flat:
        beside += f"; one group alone scores {fixed(flat[high], 2)} at this β"
        beside += f" and {fixed(flat.max(), 2)} at its best, β = {flat.idxmax():g}" if flat.idxmax() != high else ""
    sentences = [
        f"In {counted(len(records), 'model')} of {whose}, {counted(int(seeds), 'seed')} a setting, the top group's "
        f"share of the nats at β = {high:g} (and at β = {low:g}) is {listed(held)} while training begins.",
        f"Where it holds most, its draws score {fixed(draws.mean(), 2)} (Higgins score, L = 5; chance "
        f"{fixed(top['higgins_chance'].mean(), 2)}; live latents: {fixed(top['top_live'].mean(), 1)}) and random "
        f"rotations of them {fixed(rotated.mean(), 2)}: {above} of {len(top)} models are above theirs{beside}."
        if len(top)
        else "Even where it holds most, the top group is in use in none of these models.",
    ]
    scores = {"draws": draws.mean(), "rotated": rotated.mean(), "alone": flat.get(high)}
    data = {"text": " ".join(sentences), "sentences": sentences, "share": shares.T.to_dict(), "scores": scores}
    return statement("{text}", **data)

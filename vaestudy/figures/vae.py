"""Figures of stage 1: images, the bound and its parts, and what the latents do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from vaestudy.errors import InputError
from vaestudy.figures import charts, draw
from vaestudy.figures.figure import Figure
from vaestudy.metrics import mean_correlation
from vaestudy.training.run import noise_from
from vaestudy.words import LABELS, counted, fixed, label, number

__all__ = [
    "correlations", "examples", "gradient_spread", "importance_ladder", "kl_spectrum", "manifold", "reconstructions",
    "training_curves",
]  # fmt: skip


def examples(images: Any, count: int = 48, columns: int = 16) -> Figure:
    """Some images of a set, drawn at random."""
    index = drawn_at_random(images, min(count, len(images)))
    caption = f"{len(index)} of the {counted(len(images), 'image')} of {label(images.name)}, drawn at random."
    alt = f"A grid of {counted(len(index), 'example image')}."
    return charts.image_grid(images.batch(index), columns, caption, alt, {"index": index})


def drawn_at_random(images: Any, count: int) -> np.ndarray:
    """The places of so many images of a set, more than once where it has fewer."""
    return np.random.default_rng(0).choice(len(images), count, replace=len(images) < count)


def gradient_spread(spreads: Mapping[str, Mapping[int, float]]) -> Figure:
    """Variance of each gradient estimator against the number of noise samples averaged."""
    table = pd.DataFrame(spreads)
    one = table.loc[1]
    alt = f"At L = 1 the variance is {number(one.min())} for {one.idxmin()} and {number(one.max())} for {one.idxmax()}."
    caption = "Variance of the gradient of the bound by the mean and log std of q(z|x), summed over them; one model."
    x, y = "noise samples L for each image", "variance of the gradient"
    return charts.lines(table, x, "estimator", y, caption, alt, yscale="log")


def training_curves(runs: Mapping[str, Any]) -> Figure:
    """ELBO, reconstruction and KL of each run, nats per image, over the images it has seen but for the first sixth."""
    titles = {name: LABELS[name].removesuffix(", nats") for name in ("elbo_nats", "nll_nats", "kl_nats")}
    logs = {name: _whole_intervals(run.history, ["images_seen", *titles]) for name, run in runs.items()}
    log = pd.concat(logs, names=["run"]).reset_index("run")
    settled = log[log["images_seen"] > log.groupby("run")["images_seen"].transform("max") / 6]
    tidy = settled.assign(thousands=settled["images_seen"] / 1000)
    tidy = tidy.melt(["run", "images_seen", "thousands"], [*titles], "part", "nats per image")
    ends = [f"{name}: ELBO {fixed(own['elbo_nats'].iloc[-1], 1)} nats" for name, own in logs.items()]
    seen = [f"{name}: {counted(int(own['images_seen'].iloc[-1]), 'image')}" for name, own in logs.items()]
    caption = "The bound and its two parts during training, means over the images of each interval; "
    caption += f"the first sixth is left out. Images seen by the last interval: {'; '.join(seen)}."
    alt = f"Curves that end at {'; '.join(ends)}."
    axes = {"hue": "run", "panel": "part", "titles": titles, "xlabel": "thousand images seen", "height": 2.9}
    return charts.curves(tidy, "thousands", "nats per image", caption, alt, log=False, markers=False, **axes)


def _whole_intervals(history: Mapping[str, np.ndarray] | pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The log without a last interval that is shorter than the others, whose means are over fewer images."""
    log = pd.DataFrame({name: history[name] for name in names})
    steps = np.diff(log["images_seen"], prepend=0)
    return log[:-1] if len(log) > 1 and steps[-1] < steps[-2] else log


@torch.no_grad()
def reconstructions(model: Any, images: Any, count: int = 12) -> Figure:
    """Originals, the means of p(x|z) at their posterior means, and samples from the prior."""
    index = drawn_at_random(images, count)
    x = images.batch(index).to(next(model.parameters()).device)
    with noise_from(0, x.device):
        rows = {"image": x, "rebuilt": model.decode(model.encode(x)), "sample": model.sample(count)}
    error = float((x - rows["rebuilt"]).square().mean())
    caption = "Images that training never saw, their reconstructions, and samples from the prior."
    alt = f"Mean squared error of the reconstructions {number(error)}."
    return charts.image_rows(rows, caption, {"index": index, "mean_squared_error": error}, alt)


@torch.no_grad()
def manifold(model: Any, side: int = 15) -> Figure:
    """Means of p(x|z) on a grid of 2-D latents, even under the prior (Kingma & Welling, 2014, App. A)."""
    if model.config.latent_dim != 2:
        raise InputError(f"the manifold needs a model with 2 latents, not {model.config.latent_dim}")
    # Cell centres, as the inverse CDF is infinite at 0 and 1.
    place = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    grid = torch.cartesian_prod(-place, place).flip(1).to(next(model.parameters()).device)
    caption = f"The plane of a VAE with two latents: {side} × {side} points, equally likely under the prior, decoded."
    alt = f"A square of {side * side} decoded images, one latent along each side."
    return charts.image_grid(model.decode([grid]), side, caption, alt, {"latents_along_an_axis": place}, width=5.2)


def kl_spectrum(kl: np.ndarray, active: np.ndarray) -> Figure:
    """Mean KL of each latent in nats, largest first; latents that are not active in grey."""
    order = np.argsort(-kl, kind="stable")
    state = np.where(active, "active", "not active")[order]
    latents = pd.DataFrame({"latent": [f"z{i}" for i in order], "KL, nats": kl[order], "state": state})
    looks = {"active": draw.PALETTE[0], "not active": draw.GREY}
    caption = "KL divergence of each latent from the prior. Active: the variance of its mean is above 0.01."
    alt = f"{int(active.sum())} of {counted(len(kl), 'latent')} are active; all share {fixed(kl.sum(), 1)} nats."
    ticks = {} if len(kl) <= 20 else {"xticks": [0, len(kl) - 1]}
    return charts.bars(latents, "latent", ["KL, nats"], "state", caption, alt, palette=looks, height=2.8, **ticks)


def importance_ladder(samples: Sequence[int], bounds: np.ndarray) -> Figure:
    """The importance-weighted bound against K; `bounds` (K's, images) in nats, with 95 % intervals over images."""
    # Each image's gain on its ELBO, put upon the mean ELBO: the interval is that of the gain.
    gains = pd.DataFrame(bounds - bounds[0] + bounds[0].mean(), list(samples))
    x, y, means = "importance samples K", "bound on log p(x), nats", bounds.mean(1)
    alt = f"From {fixed(means[0], 2)} nats at K = {samples[0]} to {fixed(means[-1], 2)} at K = {samples[-1]}."
    caption = f"The bound over K: means over {counted(bounds.shape[1], 'image')} of one model, "
    caption += "with 95 % intervals of the gain on the ELBO (K = 1)."
    shown = charts.curves(charts.melt(gains, x, "image", y), x, y, caption, alt)
    shown.data = pd.DataFrame({"mean": gains.mean(axis=1), "sem": gains.sem(axis=1)}).rename_axis(x).reset_index()
    return shown


def correlations(matrices: Mapping[str, np.ndarray], scores: Mapping[str, float], metric: str) -> Figure:
    """Absolute correlations between the latents of several codes, side by side with a score of each if there is one."""
    rows, shown, texts = [], {}, []
    for name, matrix in matrices.items():
        mean = mean_correlation(matrix)
        rows.append({"code": name, "mean |correlation|": mean, metric: scores.get(name)})
        score = fixed(scores[name], 2) if name in scores else ""
        shown[f"{name}\n{metric}: {score}" if score else name] = pd.DataFrame(np.abs(matrix))
        texts.append(f"{name}: mean {fixed(mean, 2)}" + (f", score {score}" if score else ""))
    beside = f" beside a score of the same codes ({metric})" if scores else ""
    caption = f"Correlations between latents (0 off the diagonal: uncorrelated){beside}; one model or fit each."
    if not scores:
        caption += f" A {metric} needs two known factors or more, which these images have not."
    data, alt = pd.DataFrame(rows), "; ".join(texts) + "."
    return charts.heatmaps(shown, "|correlation|", caption, alt, data, square=True, ticks=False)

"""Figures of stage 1: images, the bound and its parts, and what the latents do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.figures import charts, draw
from vaestudy.figures.figure import Figure
from vaestudy.figures.player import Player, player
from vaestudy.figures.table import number
from vaestudy.training.progress import has_person

__all__ = [
    "correlations", "examples", "gradient_spread", "importance_ladder", "kl_spectrum", "latent_sliders", "manifold",
    "reconstructions", "training_curves", "traversal",
]  # fmt: skip


def examples(images: Any, count: int = 48, columns: int = 16, seed: int = 0) -> Figure:
    """Some images of a set, drawn at random."""
    index = _some(images, count, seed)
    caption = f"{count} of the {draw.counted(len(images), 'image')} of {images.name}, drawn at random."
    alt = f"A grid of {draw.counted(count, 'example image')}."
    return charts.image_grid(images.batch(index), columns, caption, alt, {"index": index})


def _some(images: Any, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(images), count, replace=len(images) < count)


def gradient_spread(spreads: Mapping[str, Mapping[int, float]]) -> Figure:
    """Variance of each gradient estimator against the number of noise samples averaged."""
    table = pd.DataFrame(spreads)
    one = table.loc[1]
    alt = f"At L = 1 the variance is {number(one.min())} for {one.idxmin()} and {number(one.max())} for {one.idxmax()}."
    caption = "Variance of the gradient of the bound by the mean and log std of q(z|x), summed over them."
    axes = {"x": "noise samples L for each image", "ylabel": "variance of the gradient", "yscale": "log"}
    return charts.lines(table, caption, alt, **axes)


@draw.style()
def training_curves(runs: Mapping[str, Any]) -> Figure:
    """ELBO, reconstruction and KL of each run against the images it has seen; nats per image."""
    titles = {"elbo_nats": "ELBO", "nll_nats": "reconstruction −log p(x|z)", "kl_nats": "KL(q(z|x) ‖ p(z))"}
    histories = {name: _whole_intervals(run.history, ["images_seen", *titles]) for name, run in runs.items()}
    log = pd.concat(histories, names=["run"]).reset_index("run")
    log["thousands"] = log["images_seen"] / 1000
    settled = log[log["images_seen"] > log.groupby("run")["images_seen"].transform("max") / 6]
    fig, axes = draw.canvas(1, 3, width=7.8, height=2.7)
    look = {"estimator": None, "errorbar": None, "markers": False}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        draw.curves(ax, log, x="thousands", y=name, hue="run", **look)
        room = 0.08 * np.ptp(settled[name]) + 1e-9
        ax.set(title=title, xlabel="thousand images seen", ylabel="nats per image" if ax is axes[0] else "")
        ax.set_ylim(settled[name].min() - room, settled[name].max() + room)
    draw.legend(fig)
    ends = [f"{name}: ELBO {history['elbo_nats'].iloc[-1]:.1f} nats" for name, history in histories.items()]
    caption = "The bound and its two parts during training, means over the images of each interval."
    return Figure(fig, caption, f"Curves that end at {'; '.join(ends)}.", histories)


def _whole_intervals(history: Mapping[str, np.ndarray], names: Sequence[str]) -> pd.DataFrame:
    """The log without a last interval that is shorter than the others, whose means are over fewer images."""
    log = pd.DataFrame({name: history[name] for name in names})
    steps = np.diff(log["images_seen"], prepend=0)
    return log[:-1] if len(log) > 1 and steps[-1] < steps[-2] else log


@torch.no_grad()
def reconstructions(model: Any, images: Any, count: int = 12, seed: int = 0) -> Figure:
    """Originals, the means of p(x|z) at their posterior means, and samples from the prior."""
    index = _some(images, count, seed)
    x = images.batch(index).to(next(model.parameters()).device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
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
    alt = f"A square of {side * side} decoded images that change smoothly along both latents."
    return charts.image_grid(model.decode([grid]), side, caption, alt, {"latents_along_an_axis": place}, width=5.2)


@draw.style()
def kl_spectrum(kl: np.ndarray, active: np.ndarray) -> Figure:
    """Mean KL of each latent in nats, largest first; latents that are not active in grey."""
    state = np.where(active, "active", "not active")
    latents = pd.DataFrame({"latent": [f"z{i}" for i in range(len(kl))], "KL, nats": kl, "state": state})
    looks = {"active": draw.PALETTE[0], "not active": draw.GREY}
    fig, ax = draw.canvas(height=2.6)
    draw.bars(ax, latents.sort_values("KL, nats", ascending=False), "latent", "KL, nats", "state", looks)
    draw.legend(fig)
    ax.tick_params("x", rotation=90 if len(kl) > 20 else 0, labelbottom=len(kl) <= 50)
    caption = "KL divergence of each latent from the prior. Active: the variance of its mean is 0.01 or more."
    alt = f"{int(active.sum())} of {draw.counted(len(kl), 'latent')} are active; all share {kl.sum():.1f} nats."
    return Figure(fig, caption, alt, {"kl_nats": kl, "active": active})


@draw.style()
def importance_ladder(samples: Sequence[int], bounds: np.ndarray) -> Figure:
    """The importance-weighted bound against K; `bounds` (K's, images) in nats, with 95 % intervals over images."""
    means, gains = bounds.mean(1), bounds - bounds[0]
    errors = gains.std(1, ddof=1) / np.sqrt(bounds.shape[1])
    fig, ax = draw.canvas(height=2.8)
    ax.errorbar(samples, means, yerr=1.96 * errors, marker="o", capsize=3)
    draw.log_ticks(ax, samples, "importance samples K")
    ax.set_ylabel("bound on log p(x), nats")
    alt = f"From {means[0]:.2f} nats at K = {samples[0]} to {means[-1]:.2f} at K = {samples[-1]}."
    caption = "The bound tightens with K; bars: 95 % intervals over images of the gain on the ELBO (K = 1)."
    return Figure(fig, caption, alt, {"samples": samples, "bound_nats": means, "standard_error_of_gain": errors})


@torch.no_grad()
def traversal_frames(model: Any, x: Tensor, latents: Sequence[int], values: Tensor) -> Tensor:
    """Images (latents, values, c, h, w): each latent of one image walks along `values`, the others stay inferred."""
    (mean,) = model.encode(x[:1])
    walked = mean.repeat(len(latents), len(values), 1)
    walked[range(len(latents)), :, latents] = values
    return model.decode([walked.flatten(0, 1)]).unflatten(0, (len(latents), len(values)))


@torch.no_grad()
def traversal(
    model: Any, images: Any, order: str = "kl", *, start: int | None = None, rows: int = 10, frames: int = 25,
    reach: float = 3.0, name: str = "",
) -> Player:  # fmt: skip
    """Latents of one image walked from -reach to reach, ordered by KL (Higgins et al., 2017, fig. 2) or by number.

    `name` is the model's, for the caption.
    """
    device = next(model.parameters()).device
    sample = np.random.default_rng(0).choice(len(images), min(1000, len(images)), replace=False)
    kl = model.kl_per_latent(images.batch(sample).to(device))[0].mean(0).cpu().numpy()
    latents = (np.argsort(-kl) if order == "kl" else np.arange(len(kl)))[:rows].tolist()
    start = int(sample[0]) if start is None else start
    values = torch.linspace(-reach, reach, frames, device=device)
    pictures = traversal_frames(model, images.batch([start]).to(device), latents, values).cpu()
    ordered = "by KL from the prior" if order == "kl" else "by number"
    caption = f"its latents walked one at a time from −{reach:g} to {reach:g}, {ordered}."
    caption = f"{name}: one image, {caption}" if name else f"One image, {caption}"
    high, low = kl[latents].max(), kl[latents].min()
    strips = draw.counted(len(latents), "strip")
    alt = f"{strips} of images, one for each latent; KL from {high:.2f} down to {low:.2f} nats."
    data = {"latents": latents, "kl_nats": kl[latents], "image": start}
    labels, steps = [f"z{i}: {kl[i]:.2f} nats" for i in latents], [f"z = {value:+.2f}" for value in values.tolist()]
    return player(pictures, caption, alt, data, labels=labels, steps=steps, slider="value of the latent that is walked")


@draw.style()
def correlations(matrices: Mapping[str, np.ndarray], scores: Mapping[str, float], metric: str) -> Figure:
    """Absolute correlations between the latents of several codes, side by side with a score of each code."""
    fig, axes = draw.canvas(1, len(matrices), width=7.8, height=7.8 / len(matrices) + 0.4, squeeze=False)
    means, words = {}, []
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        means[name] = float(np.abs(matrix[~np.eye(len(matrix), dtype=bool)]).mean())
        shown = draw.heatmap(ax, np.abs(matrix), square=True, ticks=False)
        score = f"{metric} {scores[name]:.2f}" if name in scores else ""
        ax.set_title(f"{name}\n{score}".strip(), fontsize=9)
        words.append(f"{name}: mean {means[name]:.2f}{score and f', {score}'}")
    fig.colorbar(shown, ax=axes[0], shrink=0.7, label="|correlation|")
    caption = f"Correlations between latents (0 off the diagonal: uncorrelated) beside the {metric} of the same codes."
    return Figure(fig, caption, "; ".join(words) + ".", {"mean_absolute_correlation": means, "score": scores})


def latent_sliders(model: Any, images: Any, rows: int = 6, reach: float = 3.0) -> Any:
    """A slider for each of the latents of highest KL and the image they decode to; None where nobody can move it."""
    if not has_person():
        return None
    import ipywidgets as widgets
    from IPython.display import display

    x = images.batch([len(images) // 2]).to(next(model.parameters()).device)
    with torch.no_grad():
        (mean,), kl = model.encode(x), model.kl_per_latent(x)[0][0]
    latents = torch.argsort(kl, descending=True)[:rows].tolist()

    @torch.no_grad()
    def show(**values: float) -> None:
        z = mean.clone()
        z[0, latents] = z.new_tensor(list(values.values()))
        image = model.decode([z])
        display(charts.image_grid(image, 1, "The image at these latents.", "One decoded image.", values, width=2.4))

    starts = {f"z{i}": float(mean[0, i].clamp(-reach, reach)) for i in latents}
    sliders = {name: widgets.FloatSlider(at, min=-reach, max=reach, step=0.1) for name, at in starts.items()}
    return widgets.interactive(show, **sliders)

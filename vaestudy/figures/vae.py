"""Figures of stage 1: images, the bound and its parts, and what the latents do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vaestudy.errors import InputError
from vaestudy.figures.figure import PALETTE, Figure, canvas, show_images, style
from vaestudy.figures.player import Player, player
from vaestudy.figures.table import number
from vaestudy.training.progress import has_person


@style()
def examples(images: Any, count: int = 48, columns: int = 16, seed: int = 0) -> Figure:
    """Some images of a set, drawn at random."""
    index = np.random.default_rng(seed).choice(len(images), count, replace=len(images) < count)
    fig, ax = canvas(height=6.6 * -(-count // columns) / columns)
    show_images(ax, images.batch(index), columns)
    caption = f"{count} of the {len(images):,} images of {images.name}, drawn at random."
    return Figure(fig, caption, f"A grid of {count} example images.", {"index": index})


@style()
def gradient_spread(spreads: Mapping[str, Mapping[int, float]]) -> Figure:
    """Variance of each gradient estimator against the number of noise samples averaged."""
    fig, ax = canvas()
    for (name, by_samples), marker in zip(spreads.items(), "os^", strict=True):
        ax.loglog(list(by_samples), list(by_samples.values()), marker=marker, label=name)
    ax.set(xlabel="noise samples L for each image", ylabel="variance of the gradient")
    ax.legend()
    one = {name: by_samples[1] for name, by_samples in spreads.items()}
    worst, best = max(one, key=one.get), min(one, key=one.get)
    alt = f"At L = 1 the variance is {number(one[best])} for {best} and {number(one[worst])} for {worst}."
    caption = "Variance of the gradient of the bound by the mean and log std of q(z|x), summed over them."
    return Figure(fig, caption, alt, spreads)


@style()
def training_curves(runs: Mapping[str, Any]) -> Figure:
    """ELBO, reconstruction and KL of each run against the images it has seen; nats per image."""
    names = {"elbo_nats": "ELBO", "nll_nats": "reconstruction −log p(x|z)", "kl_nats": "KL(q(z|x) ‖ p(z))"}
    fig, axes = canvas(1, 3, width=7.8, height=2.7)
    histories = {label: run.history for label, run in runs.items()}
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        for label, history in histories.items():
            ax.plot(history["images_seen"] / 1e3, history[name], label=label)
        ax.set(title=title, xlabel="thousand images seen")
        settled = np.concatenate([history[name][len(history[name]) // 6 :] for history in histories.values()])
        low, high = settled.min(), settled.max()
        ax.set_ylim(low - 0.08 * (high - low) - 1e-9, high + 0.08 * (high - low) + 1e-9)
    axes[0].set_ylabel("nats per image")
    if len(runs) > 1:
        axes[0].legend()
    ends = [f"{label}: ELBO {history['elbo_nats'][-1]:.1f} nats" for label, history in histories.items()]
    caption = "The bound and its two parts during training, means over the images of each interval."
    return Figure(fig, caption, f"Curves that end at {'; '.join(ends)}.", histories)


@style()
@torch.no_grad()
def reconstructions(model: Any, images: Any, count: int = 12, seed: int = 0) -> Figure:
    """Originals, the means of p(x|z) at their posterior means, and samples from the prior."""
    index = np.random.default_rng(seed).choice(len(images), count, replace=len(images) < count)
    x = images.batch(index).to(next(model.parameters()).device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rows = torch.cat([x, model.decode(model.encode(x)), model.sample(count)])
    fig, ax = canvas(height=6.6 * 3 / count + 0.15)
    show_images(ax, rows, count)
    error = float((rows[:count] - rows[count : 2 * count]).square().mean())
    caption = "First row: images that training never saw. Second: their reconstructions. Third: samples from the prior."
    alt = f"Three rows of {count} images; mean squared error of the reconstructions {number(error)}."
    return Figure(fig, caption, alt, {"index": index, "mean_squared_error": error})


@style()
@torch.no_grad()
def manifold(model: Any, side: int = 15) -> Figure:
    """Means of p(x|z) on a grid of 2-D latents, even under the prior (Kingma & Welling, 2014, App. A)."""
    if model.config.latent_dim != 2:
        raise InputError(f"the manifold needs a model with 2 latents, not {model.config.latent_dim}")
    # Cell centres, as the inverse CDF is infinite at 0 and 1.
    place = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    grid = torch.cartesian_prod(-place, place).flip(1).to(next(model.parameters()).device)
    fig, ax = canvas(width=5.2, height=5.2)
    show_images(ax, model.decode([grid]), side)
    caption = f"The plane of a VAE with two latents: {side} x {side} points, equally likely under the prior, decoded."
    alt = f"A square of {side * side} decoded images that change smoothly along both latents."
    return Figure(fig, caption, alt, {"latents_along_an_axis": place})


@style()
def kl_spectrum(kl: np.ndarray, active: np.ndarray) -> Figure:
    """Mean KL of each latent in nats, largest first; latents that are not active in grey."""
    order = np.argsort(-kl)
    fig, ax = canvas(height=2.6)
    colours = [PALETTE[0] if active[i] else PALETTE[5] for i in order]
    ax.bar(np.arange(len(kl)), kl[order], color=colours)
    ax.set(xlabel="latent, by KL", ylabel="KL, nats")
    ax.set_xticks(np.arange(len(kl)), [str(i) for i in order])
    caption = "KL divergence of each latent from the prior. Grey: not active, the variance of its mean is below 0.01."
    alt = f"{int(active.sum())} of {len(kl)} latents are active and share {kl.sum():.1f} nats."
    return Figure(fig, caption, alt, {"kl_nats": kl, "active": active})


@style()
def importance_ladder(samples: Sequence[int], bounds: np.ndarray) -> Figure:
    """The importance-weighted bound against K; `bounds` (K's, images) in nats, with standard errors over images."""
    means, gains = bounds.mean(1), bounds - bounds[0]
    errors = gains.std(1, ddof=1) / np.sqrt(bounds.shape[1])
    fig, ax = canvas(height=2.8)
    ax.errorbar(samples, means, yerr=errors, marker="o", capsize=3)
    ax.set(xscale="log", xlabel="importance samples K", ylabel="bound on log p(x), nats")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    alt = f"From {means[0]:.2f} nats at K = {samples[0]} to {means[-1]:.2f} at K = {samples[-1]}."
    caption = "The bound tightens with K; bars: standard error over images of the gain on the ELBO (K = 1)."
    return Figure(fig, caption, alt, {"samples": samples, "bound_nats": means, "standard_error_of_gain": errors})


@torch.no_grad()
def traversal_frames(model: Any, x: Tensor, latents: Sequence[int], values: Tensor) -> Tensor:
    """Images (latents, values, c, h, w): each latent of one image walks along `values`, the others stay inferred."""
    (mean,) = model.encode(x[:1])
    walked = mean.repeat(len(latents), len(values), 1)
    for row, latent in enumerate(latents):
        walked[row, :, latent] = values
    return model.decode([walked.flatten(0, 1)]).unflatten(0, (len(latents), len(values)))


def traversal(
    model: Any,
    images: Any,
    order: str = "kl",
    *,
    start: int | None = None,
    rows: int = 10,
    frames: int = 25,
    reach: float = 3.0,
    name: str = "",
) -> Player:
    """Latents of one image walked from -reach to reach, ordered by KL (Higgins et al., 2017, fig. 2) or by number.

    `name` is the model's, for the caption.
    """
    device = next(model.parameters()).device
    sample = np.random.default_rng(0).choice(len(images), min(1000, len(images)), replace=False)
    with torch.no_grad():
        kl = model.kl_per_latent(images.batch(sample).to(device))[0].mean(0).cpu().numpy()
    latents = np.argsort(-kl) if order == "kl" else np.arange(len(kl))
    latents = [int(i) for i in latents[:rows]]
    start = int(sample[0]) if start is None else start
    values = torch.linspace(-reach, reach, frames, device=device)
    pictures = traversal_frames(model, images.batch([start]).to(device), latents, values)
    whose = f"{name}: one" if name else "One"
    return player(
        pictures.cpu(),
        f"{whose} image, its latents walked one at a time from −{reach:g} to {reach:g}, by KL from the prior.",
        f"{len(latents)} strips of images, one for each latent; KL from {kl.max():.2f} down to {kl.min():.2f} nats.",
        {"latents": latents, "kl_nats": kl[latents], "image": start},
        labels=[f"z{i}: {kl[i]:.2f} nats" for i in latents],
        steps=[f"{v:+.2f}" for v in values.tolist()],
    )


@style()
def correlations(matrices: Mapping[str, np.ndarray], scores: Mapping[str, float], metric: str) -> Figure:
    """Absolute correlations between the latents of several codes, side by side with a score of each code."""
    fig, axes = canvas(1, len(matrices), width=7.8, height=7.8 / len(matrices) + 0.4, squeeze=False)
    means = {}
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        off = ~np.eye(len(matrix), dtype=bool)
        means[name] = float(np.abs(matrix[off]).mean())
        shown = ax.imshow(np.abs(matrix), vmin=0, vmax=1, cmap="cividis")
        ax.set_title(f"{name}\n{metric} {scores[name]:.2f}" if name in scores else name, fontsize=9)
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
    fig.colorbar(shown, ax=axes[0], shrink=0.7, label="|correlation|")
    lines = [f"{name}: mean {means[name]:.2f}, {metric} {scores.get(name, math.nan):.2f}" for name in matrices]
    caption = f"Correlations between latents (0 off the diagonal: uncorrelated) beside the {metric} of the same codes."
    return Figure(fig, caption, "; ".join(lines) + ".", {"mean_absolute_correlation": means, "score": scores})


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

    def show(**values: float) -> None:
        z = mean.clone()
        for name, value in values.items():
            z[0, int(name[1:])] = value
        with style(), torch.no_grad():
            fig, ax = canvas(width=2.4, height=2.4)
            show_images(ax, model.decode([z]), 1)
        display(Figure(fig, "The image at these latents.", "One decoded image.", values))

    sliders = {
        f"z{i}": widgets.FloatSlider(float(mean[0, i].clamp(-reach, reach)), min=-reach, max=reach, step=0.1)
        for i in latents
    }
    return widgets.interactive(show, **sliders)

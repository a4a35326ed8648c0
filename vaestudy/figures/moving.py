"""Latents that move: strips that play in a page, decoders that run in it, and sliders in JupyterLab."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from torch import Tensor, nn

from vaestudy import data
from vaestudy.errors import InputError
from vaestudy.figures import charts
from vaestudy.figures.draw import png, rgba
from vaestudy.figures.figure import Output, render, statement
from vaestudy.files import project_root
from vaestudy.training import Run
from vaestudy.training.listing import open_run, runs, settings_of
from vaestudy.training.progress import has_person
from vaestudy.words import counted, fixed, listed, readable

__all__ = ["decoder", "explore", "player", "traversal"]

REACH = 3  # standard deviations of the prior, to which latents are moved
LARGEST = 2**15 - 1  # a weight is a whole number of 16 bits times its layer's step
MOST_BYTES = 2_000_000  # of the weights of all models of a page, as text
STEP = 0.05  # of a slider
LEFT_OUT = "No decoder to move by hand stands here: {reason}."


def player(
    frames: Any, caption: str, alt: str, data: Any, *, labels: Sequence[str], steps: Sequence[str],
    slider: str = "frame",
) -> Output:  # fmt: skip
    """Image strips (strips, frames, c, h, w) in [0, 1] that play side by side: one strip for each latent, say.

    It opens with the frame whose emptiest image has most to see. `labels` names the strips, `steps` the frames, and
    `slider` what the steps are values of.
    """
    shape, strips = tuple(frames.shape), len(labels)
    if len(shape) != 5 or shape[:2] != (strips, len(steps)):
        raise InputError(f"frames {shape} must be ({strips} labels, {len(steps)} steps, c, h, w)")
    pixels = rearrange(rgba(frames.reshape(-1, *shape[2:])), "(s f) h w k -> s f h w k", s=strips)
    body = render(
        "player",
        alt=readable(alt),
        sheet=png(rearrange(pixels, "s f h w k -> (s h) (f w) k")),  # a strip a row, a frame a column
        size=(shape[4], shape[3]),
        places=list(zip(map(readable, labels), np.linspace(0, 100, strips).round(4), strict=True)),
        steps=list(map(readable, steps)),
        first=int(pixels[..., :3].std(axis=(2, 3, 4)).min(axis=0).argmax()),
        slider=slider,
        columns=math.ceil(strips / math.ceil(strips / 7)),  # rows of about the same length
    )
    return Output("player", body, caption, alt, data)


@torch.no_grad()
def start_of(model: Any, images: Any) -> tuple[Tensor, np.ndarray, list[int]]:
    """Where latents are moved from: the posterior mean (1, d) of the image in the middle of a set; the KL of each from
    the prior over a thousand images, nats; and the latents by it, the greatest first."""
    device = next(model.parameters()).device
    some = np.random.default_rng(0).choice(len(images), min(1000, len(images)), replace=False)
    nats = model.kl_per_latent(images.batch(some).to(device))[0].mean(0).cpu().numpy()
    (mean,) = model.encode(images.batch([len(images) // 2]).to(device))
    return mean, nats, np.argsort(-nats, kind="stable").tolist()


@torch.no_grad()
def traversal_frames(model: Any, mean: Tensor, latents: Sequence[int], values: Tensor) -> Tensor:
    """Images (latents, values, c, h, w): each latent of a code (1, d) walks along `values`, the others stay."""
    walked = mean.repeat(len(latents), len(values), 1)
    walked[range(len(latents)), :, latents] = values
    return model.decode([walked.flatten(0, 1)]).unflatten(0, (len(latents), len(values)))


def traversal(model: Any, images: Any, order: str = "kl", rows: int = 10, frames: int = 25, name: str = "") -> Output:
    """Latents of one image of the model `name` walked from -3 to 3, by KL (Higgins et al., 2017, fig. 2) or number."""
    mean, nats, by_kl = start_of(model, images)
    latents, ordered = (by_kl, "by KL from the prior") if order == "kl" else (sorted(by_kl), "by number")
    latents, values = latents[:rows], torch.linspace(-REACH, REACH, frames, device=mean.device)
    one = f"{name}: one image" if name else "One image"
    ends = " down to ".join(fixed(nats[latent], 2) for latent in (latents[0], latents[-1]))
    return player(
        traversal_frames(model, mean, latents, values),
        f"{one}, its latents walked one at a time from −{REACH:g} to {REACH:g}, {ordered}.",
        f"{counted(len(latents), 'strip')} of images, one for each latent; KL from {ends} nats.",
        {"latents": latents, "kl_nats": nats[latents], "image": len(images) // 2},
        labels=[f"z{i}: {fixed(nats[i], 2)} nats" for i in latents],
        steps=[f"z = {value:+.2f}" for value in values.tolist()],
        slider="value of the latent that is walked",
    )


@torch.no_grad()
def decoder(models: Mapping[str, Any], images: Any) -> Output:
    """The decoders of VAEs whose networks are fully connected, to be moved by hand inside of the page.

    All begin with the posterior means of the same image, which stands there without scripts. A sentence takes the place
    of other networks, and of more than two megabytes of weights.
    """
    shown, rows = [], []
    for name, model in models.items():
        packed = _packed(model)
        if packed is None:
            return statement(LEFT_OUT, reason=f"{name} has a decoder that is not fully connected")
        mean, nats, order = start_of(model, images)
        start = (mean.clamp(-REACH, REACH) / STEP).round() * STEP
        values = [round(value, 2) for value in start[0].tolist()]
        latents = [{"latent": f"z{i}", "nats": float(nats[i]), "start": values[i]} for i in order]
        about = {"name": readable(name), "latents": latents, "picture": png(rgba(model.decode([start]))[0])}
        shown.append({**about, "script": {"shape": model.shape, "start": values, **packed}})
        rows += [{"model": name, **latent} for latent in latents]
    size = sum(len(model["script"]["weights"]) for model in shown)
    if size > MOST_BYTES:
        return statement(LEFT_OUT, reason=f"the weights of {listed(models)} take {size / 1e6:.1f} MB")
    caption = f"The decoders of {listed(models)}, here on the page: one model each. Move a latent, and its image is "
    caption += "drawn anew. Latents in the order of their nats, from −3 to 3 standard deviations of the prior."
    alt = f"An image of {listed(models)} each, which follows {len(rows)} sliders."
    root = hashlib.sha256(repr(shown).encode()).hexdigest()[:8]
    body = render("decoder", models=shown, root=f"decoder-{root}", reach=REACH, step=STEP, fixed=fixed)
    return Output("decoder", body, caption, alt, rows)


def _packed(model: Any) -> dict[str, Any] | None:
    """The layers of a fully connected decoder for the page's script, the last giving the mean image; else None.

    Weights and biases are whole numbers of 16 bits, row by row, times their layer's step.
    """
    known = [part for part in model.decoder if not isinstance(part, nn.Unflatten)]
    linear, between = known[::2], known[1::2]
    if not all(isinstance(part, nn.Linear) for part in linear) or model.config.likelihood == "mixture":
        return None
    about, weights = [], b""
    for layer, activation in zip(linear, [*between, nn.Sigmoid()], strict=True):
        rows = torch.cat([layer.weight, layer.bias[:, None]], dim=1).float().cpu().numpy()
        if layer is linear[-1]:
            rows = rows[: math.prod(model.shape)]  # variances, where there are any, come after the means
        step = float(np.abs(rows).max()) / LARGEST or 1.0
        weights += np.rint(rows / step).astype("<i2").tobytes()
        name = type(activation).__name__.lower()
        about.append({"inputs": layer.in_features, "outputs": len(rows), "step": step, "activation": name})
    return {"layers": about, "weights": base64.b64encode(weights).decode()}


def explore(run: Run | Path | str | None = None, images: Any = None, rows: int = 8) -> Any:
    """A slider for each of the latents of most nats, and the image they decode to; None where nobody can move it.

    Args:
        run: a run, its folder or the folder's name; None shows a list to choose from.
        images: one of them is where the latents begin; the run's own data set unless given.
        rows: the number of sliders.

    Raises:
        InputError: no such run, one whose latents are maps, or no runs at all.
    """
    if not has_person():
        return None
    import ipywidgets as widgets
    from IPython.display import display

    if run is None:
        choice = widgets.Dropdown(options=explore_options())
        return widgets.interactive(lambda run: explore(run, images, rows), run=choice)
    run = open_run(run)
    model, about = run.model, settings_of(run.config) if run.finished else {"model": "the model"}
    groups = model.kl_per_latent(torch.zeros(1, *model.shape, device=run.device))
    if len(groups) > 1 or groups[0].dim() > 2:
        raise InputError("explore needs a model with one group of latents, no map; stage 3's figures show a hierarchy")
    if images is None:
        own = run.config[1]["ImageSet"]
        images = data.load(own["name"], image_size=own["shape"][1])
    mean, nats, order = start_of(model, images)

    @torch.no_grad()
    def show(**values: float) -> None:
        z = mean.clone()
        z[0, order[:rows]] = z.new_tensor(list(values.values()))
        caption = f"What {about['model']} makes of these latents."
        display(charts.image_grid(model.decode([z]), 1, caption, "One decoded image.", values, width=2.4))

    sliders = {}
    for i in order[:rows]:
        start, name = mean[0, i].clamp(-REACH, REACH).item(), f"z{i}, {fixed(nats[i], 2)} nats"
        sliders[f"z{i}"] = widgets.FloatSlider(start, min=-REACH, max=REACH, step=0.1, description=name)
    return widgets.interactive(show, **sliders)


def explore_options() -> list[tuple[str, str]]:
    """The finished runs of VAEs in words, each with its folder: one's own, then the published ones."""
    found = pd.concat([runs(), runs(project_root() / "reports" / "published")])
    found = found[(found["state"] == "finished") & found["model"].astype(str).str.startswith("VAE")]
    if not len(found):
        raise InputError("there is no finished run of a VAE yet: run a notebook first, or name a run's folder")
    names = found["stage"] + ": " + found["model"] + found["β"].map(", β = {:g}".format) + ", " + found["data"]
    return list(zip(names + ", seed " + found["seed"].astype(str), found["folder"], strict=True))

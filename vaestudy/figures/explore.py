"""Sliders over a model's latents in JupyterLab: for a run, its folder, or one chosen from a list."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaestudy import data
from vaestudy.errors import InputError
from vaestudy.figures import charts
from vaestudy.figures.vae import REACH, nats_by_latent
from vaestudy.training import Run
from vaestudy.training.listing import open_run, runs, settings_of
from vaestudy.training.progress import has_person
from vaestudy.words import fixed

__all__ = ["explore"]


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

    if run is not None:
        return _sliders(open_run(run), images, rows)
    found = runs()
    found = found[(found["state"] == "finished") & found["model"].astype(str).str.startswith("VAE")]
    if not len(found):
        raise InputError("there is no finished run of a VAE yet: run a notebook first, or name a run's folder")
    names = found["stage"] + ": " + found["model"] + found["β"].map(", β = {:g}".format) + ", " + found["data"]
    options = list(zip(names + ", seed " + found["seed"].astype(str), found["folder"], strict=True))
    return widgets.interactive(lambda run: explore(run, images, rows), run=widgets.Dropdown(options=options))


def _sliders(run: Run, images: Any, rows: int) -> Any:
    import ipywidgets as widgets
    from IPython.display import display

    model = run.model
    if len(model.kl_per_latent(torch.zeros(1, *model.shape, device=run.device))) > 1:
        raise InputError("explore needs a model with one group of latents; the figures of stage 3 show a hierarchy")
    if images is None:
        own = run.config[1]["ImageSet"]
        images = data.load(own["name"], image_size=own["shape"][1])
    nats = nats_by_latent(model, images)
    latents = np.argsort(-nats)[:rows].tolist()
    with torch.no_grad():
        (mean,) = model.encode(images.batch([len(images) // 2]).to(run.device))
    name = settings_of(run.config)["model"] if run.finished else "the model"

    @torch.no_grad()
    def show(**values: float) -> None:
        z = mean.clone()
        z[0, latents] = z.new_tensor(list(values.values()))
        caption = f"What {name} makes of these latents."
        display(charts.image_grid(model.decode([z]), 1, caption, "One decoded image.", values, width=2.4))

    look = {"min": -REACH, "max": REACH, "step": 0.1}
    starts = {f"z{i}": float(mean[0, i].clamp(-REACH, REACH)) for i in latents}
    sliders = {
        z: widgets.FloatSlider(at, description=f"{z}, {fixed(nats[int(z[1:])], 2)} nats", **look)
        for z, at in starts.items()
    }
    return widgets.interactive(show, **sliders)

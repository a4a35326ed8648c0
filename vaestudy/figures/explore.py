"""Sliders over a model's latents in JupyterLab: for a run, its folder, or one chosen from a list."""

from pathlib import Path
from typing import Any

import torch

from vaestudy import data
from vaestudy.errors import InputError
from vaestudy.figures import charts
from vaestudy.figures.vae import REACH, start_of
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
    from IPython.display import display

    if run is None:
        return widgets.interactive(lambda run: explore(run, images, rows), run=widgets.Dropdown(options=_options()))
    run = open_run(run)
    model, about = run.model, settings_of(run.config) if run.finished else {"model": "the model"}
    if len(model.kl_per_latent(torch.zeros(1, *model.shape, device=run.device))) > 1:
        raise InputError("explore needs a model with one group of latents; the figures of stage 3 show a hierarchy")
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

    look = {"min": -REACH, "max": REACH, "step": 0.1}
    starts = mean[0].clamp(-REACH, REACH).tolist()
    sliders = {
        f"z{i}": widgets.FloatSlider(starts[i], description=f"z{i}, {fixed(nats[i], 2)} nats", **look)
        for i in order[:rows]
    }
    return widgets.interactive(show, **sliders)


def _options() -> list[tuple[str, str]]:
    """The finished runs of VAEs in words, each with its folder."""
    found = runs()
    found = found[(found["state"] == "finished") & found["model"].astype(str).str.startswith("VAE")]
    if not len(found):
        raise InputError("there is no finished run of a VAE yet: run a notebook first, or name a run's folder")
    names = found["stage"] + ": " + found["model"] + found["β"].map(", β = {:g}".format) + ", " + found["data"]
    return list(zip(names + ", seed " + found["seed"].astype(str), found["folder"], strict=True))

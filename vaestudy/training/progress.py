"""Who watches, and how far a training is."""

import sys
from collections.abc import Sequence
from multiprocessing import parent_process

from tqdm.auto import tqdm

from vaestudy.training.run import Job


def progress_bar(jobs: Sequence[Job], images: int, done: int) -> tqdm:
    """How far trainings of so many images are, for a person who watches: with the kinds of models and their β."""
    kinds = dict.fromkeys(type(job.model).__name__ for job in jobs)
    betas = sorted({job.training.objective.beta for job in jobs})
    span = f"{betas[0]:g}" if len(betas) == 1 else f"{betas[0]:g} to {betas[-1]:g}"
    count = f"{len(jobs)} models: " if len(jobs) > 1 else ""
    shown = {"total": images, "initial": done, "unit": "image", "unit_scale": True, "leave": False}
    # A bar moves in a terminal and in JupyterLab, not in a report; a process that trains for another has none.
    watched = has_person() if "ipykernel" in sys.modules else sys.stderr.isatty()
    hidden = parent_process() is not None or not watched
    return tqdm(desc=f"{count}{' and '.join(kinds)}, β = {span}", disable=hidden, **shown)


def has_person() -> bool:
    """Whether this is a notebook kernel that a person types into, rather than one that renders a report."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    # Programs that execute notebooks refuse the kernel's questions; front ends allow them.
    return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))

"""Who watches, and how far a training is."""

import sys
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import Any

from tqdm.auto import tqdm


def label(models: Sequence[tuple[Any, float]]) -> str:
    """What a bar calls the models that are trained: their kind and, with each, its β."""
    kinds = dict.fromkeys(type(model).__name__ for model, _ in models)
    betas = sorted({beta for _, beta in models})
    span = f"{betas[0]:g}" if len(betas) == 1 else f"{betas[0]:g} to {betas[-1]:g}"
    count = f"{len(models)} models: " if len(models) > 1 else ""
    return f"{count}{' and '.join(kinds)}, β = {span}"


def progress_bar(name: str, images: int, done: int) -> tqdm:
    """How far a training of so many images is, for a person who watches."""
    return tqdm(
        total=images,
        initial=done,
        unit="image",
        unit_scale=True,
        desc=name,
        disable=not shows_progress(),
        leave=False,
    )


def shows_progress() -> bool:
    """Whether a bar would be seen as it moves: in a terminal or by a person in JupyterLab, not in a report.

    A process that trains for another one leaves the bar to that one.
    """
    if parent_process() is not None:
        return False
    return has_person() if "ipykernel" in sys.modules else sys.stderr.isatty()


def has_person() -> bool:
    """Whether this is a notebook kernel that a person types into, rather than one that renders a report."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    # Programs that execute notebooks refuse the kernel's questions; front ends allow them.
    return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))

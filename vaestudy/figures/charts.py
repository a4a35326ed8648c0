"""The kinds of figure that several stages share: lines over a setting, and images in rows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns

from vaestudy.figures import draw
from vaestudy.figures.figure import Figure


@draw.style()
def lines(
    table: pd.DataFrame,
    caption: str,
    alt: str,
    *,
    x: str,
    chance: float | None = None,
    height: float = 3.0,
    **axes: Any,
) -> Figure:
    """A line for each column over the index, on a logarithmic axis `x` with ticks at the values of the index."""
    fig, ax = draw.canvas(width=7.2, height=height)
    draw.log_ticks(ax, table.index, x)
    ax.set(**axes)
    draw.curves(ax, table)
    draw.chance(ax, chance)
    ax.set_ylabel(axes["ylabel"])
    draw.legend(fig)
    return Figure(fig, caption, alt, table.to_dict())


@draw.style()
def dots(
    models: pd.DataFrame, across: str, up: str, kind: pd.Series, caption: str, alt: str, *, x: str, y: str,
    chance: float | None = None, palette: Any = None,
) -> Figure:  # fmt: skip
    """A dot for each model, two of its columns against each other; colours and markers tell the kinds apart."""
    fig, ax = draw.canvas(height=3.2)
    look = {"hue": kind, "style": kind, "palette": palette or draw.colours(kind.nunique()), "edgecolor": "none"}
    sns.scatterplot(models, x=across, y=up, s=34, ax=ax, **look)
    draw.chance(ax, chance)
    ax.set(xlabel=x, ylabel=y)
    draw.legend(fig, kind.name)
    return Figure(fig, caption, alt, models)


@draw.style()
def image_grid(images: Any, columns: int, caption: str, alt: str, data: Any, width: float = 6.6) -> Figure:
    """Images (n, c, h, w) in rows of `columns`."""
    fig, ax = draw.canvas(width=width, height=width * -(-len(images) // columns) / columns)
    draw.show_images(ax, images, columns)
    return Figure(fig, caption, alt, data)


@draw.style()
def image_rows(rows: Mapping[str, Any], caption: str, data: Any = None, alt: str = "") -> Figure:
    """Named rows of images (n, c, h, w), one beneath the other."""
    count = len(next(iter(rows.values())))
    fig, axes = draw.canvas(len(rows), 1, width=7.2, height=len(rows) * 7.2 / (count + 1.5), squeeze=False)
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        draw.show_images(ax, images, count)
        ax.text(-0.01, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=8.5)
    shown = f"{draw.counted(len(rows), 'row')} of {draw.counted(count, 'image')}: {', '.join(rows)}."
    return Figure(fig, caption, f"{shown} {alt}".strip(), {"rows": list(rows)} if data is None else data)

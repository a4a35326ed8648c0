"""The kinds of figure that the stages share: curves, dots, bars, heat maps, and images in a grid or in rows.

A chart takes a tidy table, a row an observation, and keeps it as its data.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

from vaestudy.figures import draw
from vaestudy.figures.figure import Figure
from vaestudy.words import counted, label

Levels = Mapping[str, float]  # named scores that are drawn across: chance, ceiling


@draw.style()
def curves(
    data: pd.DataFrame, x: str, y: str, caption: str, alt: str, *, hue: str | None = None, panel: str | None = None,
    titles: Mapping[Any, str] | None = None, levels: Mapping[Any, Levels] | Levels | None = None, log: bool = True,
    share: bool = False, dots: bool = False, markers: bool = True, height: float = 3.2, **axes: Any,
) -> Figure:  # fmt: skip
    """Means and 95 % intervals of `y` over `x`, a line for each `hue` named at its end, a panel for each `panel`.

    Args:
        data: a row an observation; several with the same x, hue and panel give an interval.
        titles: of the panels, which are drawn in this order.
        levels: drawn across: {"chance": .25}, or such a mapping for each panel.
        log: whether x is logarithmic, with ticks at the values that were used.
        share: whether the panels have one y axis.
        dots: whether single observations are drawn too.
    """
    names = list(titles or ([None] if panel is None else data[panel].unique()))
    names = [name for name in names if panel is None or (data[panel] == name).any()]
    fig, grid = draw.canvas(1, len(names), width=7.5, height=height, squeeze=False, sharey=share)
    kinds = [None] if hue is None else list(data[hue].unique())
    palette = dict(zip(kinds, draw.colours(len(kinds)), strict=True))
    look = {"x": x, "y": y} if hue is None else {"x": x, "y": y, "hue": hue, "style": hue, "palette": palette}
    line = {"markers": markers, "dashes": False, "markeredgecolor": draw.PAPER, "legend": False, "errorbar": interval}
    if hue is None:
        line |= {"marker": "o", "color": draw.PALETTE[0]}
    for ax, name in zip(grid[0], names, strict=True):
        part = data if panel is None else data[data[panel] == name]
        if log:
            log_ticks(ax, part[x])
        sns.lineplot(part, **look, **line, ax=ax)
        if dots:
            sns.scatterplot(part, **look, s=12, alpha=0.5, legend=False, ax=ax)
        ax.set(**{"title": (titles or {}).get(name, name or ""), "xlabel": label(x), "ylabel": label(y), **axes})
        ax.set_ylabel(ax.get_ylabel() if ax is grid[0, 0] else "")
        if ax.get_yscale() == "log":
            ax.yaxis.set_major_formatter(power)
        across = (levels or {}) if panel is None else (levels or {}).get(name, {})
        draw_levels(ax, across)
        if dots:  # intervals of two or three seeds are wide: the axis is for the models, and cuts them
            seen = [*part[y], *across.values()]
            ax.set_ylim(min(seen) - 0.06 * np.ptp(seen) - 1e-3, max(seen) + 0.06 * np.ptp(seen) + 1e-3)
    if len(kinds) > 1:
        ends = part.sort_values(x, kind="stable").groupby(hue, sort=False)
        last = {kind: (of[x].iloc[-1], of[of[x] == of[x].iloc[-1]][y].mean()) for kind, of in ends}
        name_lines(grid[0, -1], last, palette)
    return Figure(fig, caption, alt, data)


def wide(table: pd.DataFrame, x: str, hue: str, y: str) -> pd.DataFrame:
    """The tidy form of a table that holds a column a line over its index."""
    return table.rename_axis(x).reset_index().melt(x, var_name=hue, value_name=y)


def interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % Student t interval of the mean of `values`; of a single value, no interval."""
    if len(values) < 2:
        return math.nan, math.nan
    reach = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return np.mean(values) - reach, np.mean(values) + reach


def log_ticks(ax: Any, values: pd.Series) -> None:
    """A logarithmic x axis with ticks at the values that were used, and at no others; named where there is room."""
    values = sorted(set(values))
    places, named = np.log(values), [0]
    for i, place in enumerate(places):
        if place - places[named[-1]] > 0.1 * np.ptp(places):
            named.append(i)
    ax.set_xscale("log")
    ax.set_xticks(values, [f"{value:.3g}" if i in named else "" for i, value in enumerate(values)])
    ax.set_xticks([], minor=True)


def power(value: float, _: Any = None) -> str:
    """A power of ten as a tick says it."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def draw_levels(ax: Any, levels: Levels) -> None:
    """Dotted lines across at scores that a reader should hold the others against, named at the left."""
    for name, level in levels.items():
        ax.axhline(level, color=draw.GREY, lw=1.2, ls=":")
        place = {"xy": (0, level), "xycoords": ("axes fraction", "data"), "xytext": (3, 2)}
        ax.annotate(name, **place, textcoords="offset points", fontsize=draw.SMALLEST)


def name_lines(ax: Any, ends: Mapping[Any, tuple], palette: Mapping[Any, Any]) -> None:
    """The name of each line at its right end, pushed apart where two would meet."""
    bottom, top = ax.get_ylim()
    scale = ax.transData + ax.transAxes.inverted()
    gap = 1.25 * draw.SMALLEST / (0.72 * 72 * ax.figure.get_figheight())
    height, placed = -1.0, []
    for name, end in sorted(ends.items(), key=lambda item: item[1][1]):
        height = max(height + gap, scale.transform(end)[1])
        placed.append((name, end, height))
    lower = max(0, height - 1) if placed else 0
    for name, end, height in placed:
        ax.annotate(
            name, end, (1.06, height - lower), textcoords="axes fraction", va="center", fontsize=draw.SMALLEST,
            arrowprops={"arrowstyle": "-", "color": palette[name], "lw": 0.9, "shrinkA": 2, "shrinkB": 2},
        )  # fmt: skip
    ax.set_ylim(bottom, top)


@draw.style()
def dots(
    models: pd.DataFrame, x: str, y: str, hue: str, caption: str, alt: str, *, levels: Levels | None = None,
    ordered: bool = False, **axes: Any,
) -> Figure:  # fmt: skip
    """A dot for each model, two columns against each other; colours and markers tell the kinds of `hue` apart."""
    fig, ax = draw.canvas(width=6.8, height=3.4)
    palette = (draw.ramp if ordered else draw.colours)(models[hue].nunique())
    sns.scatterplot(models, x=x, y=y, s=36, hue=hue, style=hue, palette=palette, edgecolor="none", ax=ax)
    draw_levels(ax, levels or {})
    ax.set(**{"xlabel": label(x), "ylabel": label(y), **axes})
    beside(fig, label(hue))
    return Figure(fig, caption, alt, models)


@draw.style()
def bars(
    data: pd.DataFrame, x: str, ys: list[str], hue: str, caption: str, alt: str, *, palette: Any = None,
    height: float = 3.0, **axes: Any,
) -> Figure:  # fmt: skip
    """Bars over `x`, a panel for each column of `ys`, a colour for each `hue`."""
    fig, grid = draw.canvas(1, len(ys), width=7.5, height=height, squeeze=False)
    look = {"palette": palette or draw.colours(data[hue].nunique()), "hue_order": palette, "saturation": 1}
    for ax, y in zip(grid[0], ys, strict=True):
        sns.barplot(data, x=x, y=y, hue=hue, ax=ax, **look)
        ax.set(**{"xlabel": label(x), "ylabel": label(y), **axes})
    beside(fig, None)
    return Figure(fig, caption, alt, data)


def beside(fig: draw.Canvas, title: str | None) -> None:
    """One legend beside the axes (above them without a title), where there is something to tell apart."""
    handles, labels = fig.axes[0].get_legend_handles_labels()
    for ax in fig.axes:
        if ax.legend_ is not None:
            ax.legend_.remove()
    if len(labels) > 1:
        place = {"loc": "outside right upper"} if title else {"loc": "outside upper left", "ncols": 4}
        fig.legend(handles, labels, title=title, **place)


@draw.style()
def heatmaps(
    matrices: Mapping[str, pd.DataFrame], scale: str, caption: str, alt: str, data: Any, *, columns: int = 3,
    height: float = 2.6, ticks: bool = True, **options: Any,
) -> Figure:  # fmt: skip
    """A heat map for each matrix, three in a row, all on the scale from 0 to 1 that a colour bar shows."""
    rows = math.ceil(len(matrices) / columns)
    fig, grid = draw.canvas(rows, min(columns, len(matrices)), width=7.5, height=rows * height, squeeze=False)
    for ax, (name, matrix) in zip(grid.flat, matrices.items(), strict=False):
        heatmap(ax, matrix, ticks=ticks, **options)
        ax.set_title(name, fontsize=draw.SMALLEST)
        ax.tick_params("y", rotation=0)
        ax.tick_params("x", rotation=30)
    for ax in list(grid.flat)[len(matrices) :]:
        ax.set_axis_off()
    fig.colorbar(grid[0, 0].collections[0], ax=grid, shrink=0.8, label=scale)
    return Figure(fig, caption, alt, data)


def heatmap(ax: Any, values: Any, *, ticks: bool = True, cmap: str = "cividis", **options: Any) -> Any:
    """seaborn's heat map as pixels, from 0 to 1 unless `vmin`, `vmax` say so; returns what a colour bar needs."""
    look = {"vmin": 0, "vmax": 1, "cbar": False, "rasterized": True, "xticklabels": ticks, "yticklabels": ticks}
    sns.heatmap(values, cmap=cmap, ax=ax, **look | options)
    ax.grid(visible=False)
    return ax.collections[0]


@draw.style()
def image_grid(images: Any, columns: int, caption: str, alt: str, data: Any, width: float = 7.2) -> Figure:
    """Images (n, c, h, w) row by row."""
    fig, ax = draw.canvas(width=width, height=width * -(-len(images) // columns) / columns)
    draw.show_images(ax, images, columns)
    return Figure(fig, caption, alt, data)


@draw.style()
def image_rows(rows: Mapping[str, Any], caption: str, data: Any = None, alt: str = "") -> Figure:
    """Named rows of images (n, c, h, w), one beneath the other."""
    count = len(next(iter(rows.values())))
    fig, axes = draw.canvas(len(rows), 1, width=7.2, height=len(rows) * 7.2 / (count + 1.8), squeeze=False)
    for ax, (name, images) in zip(axes[:, 0], rows.items(), strict=True):
        draw.show_images(ax, images, count)
        ax.text(-0.01, 0.5, name, transform=ax.transAxes, ha="right", va="center", fontsize=draw.SMALLEST)
    shown = f"{counted(len(rows), 'row')} of {counted(count, 'image')}: {', '.join(rows)}."
    return Figure(fig, caption, f"{shown} {alt}".strip(), {"rows": list(rows)} if data is None else data)

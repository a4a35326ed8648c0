"""The kinds of figure that the stages share, each of a tidy table that is its data; and images in a grid or in rows."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

from vaestudy.figures import draw
from vaestudy.figures.figure import Figure
from vaestudy.words import counted, label

LEAST = 3  # observations that an interval is drawn of
NAME = 1.25 * draw.SMALLEST / (0.72 * 72)  # inches of a figure's height for the name of each line beside it
Levels = Mapping[str, float | None]  # named scores that are drawn across, where known: chance, ceiling


@draw.style()
def curves(
    data: pd.DataFrame, x: str, y: str, caption: str, alt: str, *, hue: str | None = None, panel: str | None = None,
    titles: Mapping[Any, str] | None = None, levels: Mapping[Any, Levels] | None = None, log: bool = True,
    share: bool = False, dots: bool = False, markers: bool = True, height: float = 3.2, **axes: Any,
) -> Figure:  # fmt: skip
    """Means and 95 % intervals of `y` over `x`, a line for each `hue` named at its end, a panel for each `panel`.

    Three or more rows with the same x, hue and panel give an interval. `titles` of the panels, in this order; `levels`
    drawn across each: {"score": {"chance": .25}}; `log`: x is logarithmic, with ticks at the values that were used;
    `share`: one y axis for all panels; `dots`: single observations are drawn too.
    """
    tidy = data.assign(one="")  # the line or the panel of a figure that has one alone
    hue, panel = hue or "one", panel or "one"
    names = titles or {name: name for name in tidy[panel].unique()}
    names = {name: title for name, title in names.items() if (tidy[panel] == name).any()}
    kinds = list(tidy[hue].unique())
    height = max(height, NAME * len(kinds))
    fig, grid = draw.canvas(1, len(names), width=7.5, height=height, squeeze=False, sharey=share)
    palette = dict(zip(kinds, draw.colours(len(kinds)), strict=True))
    dashes = {kind: "" if i < len(draw.PALETTE) else (4, 1.5) for i, kind in enumerate(kinds)}  # where colours repeat
    look = {"x": x, "y": y, "hue": hue, "style": hue, "palette": palette, "legend": False}
    line = {"dashes": dashes, "markers": markers, "markeredgecolor": draw.PAPER, "err_style": "bars"}
    line["errorbar"] = interval if tidy.duplicated([x, hue, panel]).any() else None
    for ax, (name, title) in zip(grid[0], names.items(), strict=True):
        part = tidy[tidy[panel] == name]
        if log:
            log_ticks(ax, part[x])
        sns.lineplot(part, **look, **line, ax=ax)
        if dots:
            sns.scatterplot(part, **look, s=12, alpha=0.5, ax=ax)
        ax.set(title=textwrap.fill(title, 64 // len(names)), **{"xlabel": label(x), "ylabel": label(y), **axes})
        if ax is not grid[0, 0]:
            ax.set_ylabel("")
        if ax.get_yscale() == "log":
            ax.yaxis.set_major_formatter(power)
            ax.yaxis.set_minor_formatter("")  # of a single decade they would have names, too
        draw_levels(ax, (levels or {}).get(name, {}))
    if len(kinds) > 1:
        ends = part.sort_values(x, kind="stable").groupby(hue, sort=False)
        last = {kind: (own[x].iloc[-1], own[own[x] == own[x].iloc[-1]][y].mean()) for kind, own in ends}
        name_lines(grid[0, -1], last, palette)
    return Figure(fig, caption, alt, data)


def lines(table: pd.DataFrame, x: str, hue: str, y: str, caption: str, alt: str, **options: Any) -> Figure:
    """Curves of a table that holds a column a line over its index, in one panel."""
    return curves(melt(table, x, hue, y), x, y, caption, alt, hue=hue, **options)


def melt(table: pd.DataFrame, x: str, hue: str, y: str) -> pd.DataFrame:
    """The tidy form of a table that holds a column a line over its index."""
    return table.rename_axis(x).reset_index().melt(x, var_name=hue, value_name=y).dropna()


def interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % Student t interval of the mean of `values`; of fewer than `LEAST`, which would fill a panel, none."""
    if len(values) < LEAST:
        return math.nan, math.nan
    mean, reach = values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.sem()
    return mean - reach, mean + reach


def log_ticks(ax: Any, values: pd.Series) -> None:
    """A logarithmic x axis with ticks at the values used alone, upright where they meet, nameless without room."""
    values = sorted(set(values))
    texts, last = [f"{value:.3g}" for value in values], -math.inf
    width = 0.85 * ax.figure.get_figwidth() / len(ax.figure.axes)  # of a panel, in inches
    places = width * np.log(values) / max(np.ptp(np.log(values)), 1e-9)
    upright = np.diff(places, prepend=-math.inf).min() < 0.085 * max(map(len, texts)) + 0.05
    for i, place in enumerate(places):
        texts[i], last = ("", last) if place - last < 0.17 else (texts[i], place)
    ax.set_xscale("log")
    ax.set_xticks(values, texts, rotation=90 if upright else 0)
    ax.set_xticks([], minor=True)


def power(value: float, _: Any = None) -> str:
    """A power of ten as a tick says it."""
    return "10" + str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def draw_levels(ax: Any, levels: Levels) -> None:
    """Dotted lines at scores that a reader should hold the others against, named at the left (below, where room is)."""
    known = {name: level for name, level in levels.items() if level is not None}
    if known:
        ax.margins(y=0.1)
    for name, level in known.items():
        ax.axhline(level, color=draw.GREY, lw=1.2, ls=":")
        bottom, top = ax.get_ylim()
        side = ("top", -2) if level - bottom > 0.06 * (top - bottom) else ("bottom", 2)
        place = {"xy": (0, level), "xycoords": ("axes fraction", "data"), "xytext": (3, side[1])}
        ax.annotate(name, **place, textcoords="offset points", va=side[0], fontsize=draw.SMALLEST)


def name_lines(ax: Any, ends: Mapping[Any, tuple], palette: Mapping[Any, Any]) -> None:
    """The name of each line at its right end, pushed apart where two would meet."""
    bottom, top = ax.get_ylim()
    scale = ax.transData + ax.transAxes.inverted()
    gap = NAME / ax.figure.get_figheight()
    order = sorted(ends, key=lambda name: ends[name][1])
    heights = [scale.transform(ends[name])[1] for name in order]
    pushed_up = list(accumulate(heights, lambda below, height: max(below + gap, height)))
    _, *pushed_down = accumulate(reversed(pushed_up), lambda above, height: min(above - gap, height), initial=1 + gap)
    for name, height in zip(order[::-1], pushed_down, strict=True):
        arrow = {"arrowstyle": "-", "color": palette[name], "lw": 0.9, "shrinkA": 2, "shrinkB": 2, "relpos": (0, 0.5)}
        place = {"xytext": (1.06, height), "textcoords": "axes fraction", "va": "center"}
        ax.annotate(name, ends[name], **place, fontsize=draw.SMALLEST, arrowprops=arrow)
    ax.set_ylim(bottom, top)


@draw.style()
def dots(data: pd.DataFrame, x: str, y: str, hue: str, caption: str, alt: str, levels: Levels, **axes: Any) -> Figure:
    """A dot for each model, two columns against each other; colours and markers tell the kinds of `hue` apart."""
    fig, ax = draw.canvas(width=6.8, height=3.4)
    palette = (draw.ramp if hue == "β" else draw.colours)(data[hue].nunique())
    sns.scatterplot(data, x=x, y=y, s=36, hue=hue, style=hue, palette=palette, edgecolor="none", ax=ax)
    draw_levels(ax, levels)
    ax.set(**{"xlabel": label(x), "ylabel": label(y), **axes})
    sns.move_legend(ax, "upper left", bbox_to_anchor=(1, 1), title=label(hue))
    return Figure(fig, caption, alt, data)


@draw.style()
def bars(
    data: pd.DataFrame, x: str, ys: list[str], hue: str, caption: str, alt: str, *, palette: Any = None,
    height: float = 3.0, **axes: Any,
) -> Figure:  # fmt: skip
    """Bars over `x`, a panel for each column of `ys`, a colour for each `hue`, which are named above."""
    fig, grid = draw.canvas(1, len(ys), width=7.5, height=height, squeeze=False)
    look = {"palette": palette or draw.colours(data[hue].nunique()), "hue_order": palette, "saturation": 1}
    for ax, y in zip(grid[0], ys, strict=True):
        sns.barplot(data, x=x, y=y, hue=hue, ax=ax, **look)
        ax.set(**{"xlabel": label(x), "ylabel": label(y), **axes})
        ax.legend_.remove()
        if data[y].dtype.kind == "i":
            ax.yaxis.get_major_locator().set_params(integer=True)
    handles, names = grid[0, 0].get_legend_handles_labels()
    if len(names) > 1:
        fig.legend(handles, names, loc="outside upper left", ncols=4)
    return Figure(fig, caption, alt, data)


@draw.style()
def heatmaps(
    matrices: Mapping[str, pd.DataFrame], scale: str, caption: str, alt: str, data: Any, *, height: float = 2.6,
    ticks: bool = True, **options: Any,
) -> Figure:  # fmt: skip
    """A heat map for each matrix, three in a row or two, all on the scale from 0 to 1 that a colour bar shows."""
    columns = 2 if len(matrices) == 4 else min(3, len(matrices))
    rows = math.ceil(len(matrices) / columns)
    fig, grid = draw.canvas(rows, columns, width=7.5, height=rows * height, squeeze=False)
    for ax, (name, matrix) in zip(grid.flat, matrices.items(), strict=False):
        heatmap(ax, matrix, ticks=ticks, **options)
        ax.set_title(name, fontsize=draw.SMALLEST)
        ax.tick_params("y", rotation=0)
        ax.tick_params("x", rotation=30)
    for ax in list(grid.flat)[len(matrices) :]:
        ax.set_axis_off()
    fig.colorbar(grid[0, 0].collections[0], ax=grid, shrink=0.8, label=scale)
    return Figure(fig, caption, alt, data)


def heatmap(ax: Any, values: Any, *, ticks: bool = True, cmap: str = "cividis", **options: Any) -> None:
    """seaborn's heat map as pixels, from 0 to 1 unless `vmin`, `vmax` say so."""
    look = {"vmin": 0, "vmax": 1, "cbar": False, "rasterized": True, "xticklabels": ticks, "yticklabels": ticks}
    sns.heatmap(values, cmap=cmap, ax=ax, **look | options)
    ax.grid(visible=False)


@draw.style()
def image_grid(
    images: Any, columns: int, caption: str, alt: str, data: Any, *, width: float = 7.2, names: Sequence[str] = ()
) -> Figure:
    """Images (n, c, h, w) row by row, pixel for pixel; `names` stand at the left of the rows."""
    pixels = np.concatenate([draw.rgba(row) for row in (images if names else [images])])
    rows, left = math.ceil(len(pixels) / columns), 1.8 if names else 0  # in images
    fig, ax = draw.canvas(width=width, height=width * rows / (columns + left))
    ax.imshow(draw.tile(pixels, columns))
    ax.set_axis_off()
    for row, name in enumerate(names):
        place = (-0.01, 1 - (row + 0.5) / rows)
        ax.annotate(name, place, xycoords="axes fraction", ha="right", va="center", fontsize=draw.SMALLEST)
    return Figure(fig, caption, alt, data)


def image_rows(rows: Mapping[str, Any], caption: str, data: Any = None, alt: str = "") -> Figure:
    """Named rows of images (n, c, h, w), one beneath the other."""
    count = len(next(iter(rows.values())))
    shown = f"{counted(len(rows), 'row')} of {counted(count, 'image')}: {', '.join(rows)}. {alt}".strip()
    return image_grid(list(rows.values()), count, caption, shown, data or {"rows": list(rows)}, names=list(rows))

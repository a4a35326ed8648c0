"""How everything is drawn: colours that read on light and on dark paper, the canvas, and images as pixels."""

import base64
import io
import math
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from PIL import Image

from vaestudy.errors import InputError

__all__ = ["INK", "PALETTE", "PAPER", "canvas", "ramp", "show_images", "style", "tile"]

# Told apart in every common colour blindness, and at 3:1 or more from white and from the dark page.
PALETTE = ("#7784e2", "#bb3408", "#00a850", "#bb019f", "#805d53", "#99909b")
GREY = PALETTE[5]
# Stand for the page's own text and paper: the SVG names them, the page decides.
INK, PAPER = "#0b0c0d", "#fdfcfb"

SMALLEST = 10  # of all letters, in points: a page shows a point as 1.1 pixels or more
_INKED = ("axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "grid.color", "patch.edgecolor", "text.color")
STYLE = {
    **dict.fromkeys((*_INKED, "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor", "image.interpolation"), "none"),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "image.composite_image", "legend.frameon"), False),
    **dict.fromkeys(("legend.fontsize", "legend.title_fontsize", "xtick.labelsize", "ytick.labelsize"), SMALLEST),
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in somebody's label is no formula
}

style = partial(matplotlib.rc_context, STYLE)  # for a `with style():` block or, as `@style()`, a function


def canvas(rows: int = 1, columns: int = 1, *, width: float | int = 6.6, height: float | int = 3.2, **subplots: Any):
    """A matplotlib figure of `width` x `height` inches, unknown to pyplot, and its axes as `subplots` returns them."""
    fig = Canvas(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def colours(count: int) -> list[str]:
    """The palette's first colours, from the start again after the last: for categories."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def ramp(count: int) -> list[tuple[float, ...]]:
    """Colours for an ordered family (several β): teal to vermilion, legible on light and on dark."""
    scale = LinearSegmentedColormap.from_list("ramp", ["#00a08a", "#5b7fe0", "#a848c0", "#c03a10"])
    return [scale(i / max(count - 1, 1)) for i in range(count)]


def tile(images: Any, columns: int, gap: int | None = None) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1], array or tensor, as one uint8 RGBA sheet, row by row, the gaps transparent.

    The gap is a 16th of the images' side unless given, so that it is still seen when the sheet is made smaller.
    """
    pixels = rgba(images)
    n, h, w, _ = pixels.shape
    gap = max(1, w // 16) if gap is None else gap
    sheet = np.zeros((math.ceil(n / columns), columns, h + gap, w + gap, 4), np.uint8)
    sheet.reshape(-1, h + gap, w + gap, 4)[:n, :h, :w] = pixels
    rows = sheet.shape[0] * (h + gap)
    return sheet.swapaxes(1, 2).reshape(rows, -1, 4)[: rows - gap, : columns * (w + gap) - gap]


def show_images(axes: Any, images: Any, columns: int, gap: int | None = None) -> None:
    """Draw images (n, c, h, w) in [0, 1] into `axes` as a grid, pixel for pixel and without ticks."""
    axes.imshow(tile(images, columns, gap))
    axes.set_axis_off()


def rgba(images: Any) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1], grey or colour, array or tensor, as opaque uint8 (n, h, w, 4)."""
    if hasattr(images, "detach"):
        images = images.detach().float().cpu().numpy()
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not np.isfinite(images).all():
        raise InputError(f"images must be finite and (n, 1 or 3, h, w), not {images.shape}")
    pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return np.pad(pixels, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)


def png(pixels: np.ndarray) -> str:
    """Opaque RGBA pixels (h, w, 4) as the address of an embedded PNG, one byte a pixel where all is grey."""
    grey = (pixels[..., :1] == pixels[..., 1:3]).all()
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

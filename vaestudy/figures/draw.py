"""How everything is drawn: colours that read on light and on dark paper, the canvas, and images as pixels."""

import base64
import io
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from einops import rearrange
from matplotlib.figure import Figure as Canvas
from PIL import Image

from vaestudy.errors import InputError

__all__ = ["INK", "PALETTE", "PAPER", "canvas", "ramp", "style"]

STYLE = matplotlib.rc_params_from_file(Path(__file__).with_name("vaestudy.mplstyle"), use_default_template=False)
PALETTE = tuple(STYLE["axes.prop_cycle"].by_key()["color"])
GREY = PALETTE[5]
SMALLEST = STYLE["legend.fontsize"]  # of all letters, in points
# Stand for the page's own text and paper: the SVG names them, the page decides.
INK, PAPER = STYLE["text.color"], "#fdfcfb"

# A browser draws the letters of a figure, by a font of its own where this one lacks them.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")

style = partial(matplotlib.rc_context, STYLE)  # for a `with style():` block or, as `@style()`, a function


def canvas(rows: int = 1, columns: int = 1, *, width: float | int = 6.6, height: float | int = 3.2, **subplots: Any):
    """A matplotlib figure of `width` x `height` inches, unknown to pyplot, and its axes as `subplots` returns them."""
    fig = Canvas(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


colours = partial(sns.color_palette, PALETTE)  # so many for categories, from the start again after the last


def ramp(count: int) -> list[tuple[float, ...]]:
    """Colours for an ordered family (several β): teal to vermilion, legible on light and on dark."""
    return sns.blend_palette(["#00a08a", "#5b7fe0", "#a848c0", "#c03a10"], count)


def rgba(images: Any) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1], grey or colour, array or tensor, as opaque uint8 (n, h, w, 4).

    Raises:
        InputError: another form, or pixels that are not finite.
    """
    images = np.asarray(images.detach().float().cpu() if hasattr(images, "detach") else images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not np.isfinite(images).all():
        raise InputError(f"images must be finite and (n, 1 or 3, h, w), not {images.shape}")
    pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.pad(pixels.repeat(3 // pixels.shape[-1], -1), [(0, 0)] * 3 + [(0, 1)], constant_values=255)


def tile(pixels: np.ndarray, columns: int) -> np.ndarray:
    """What `rgba` gives of some images as one sheet, row by row, the gaps transparent."""
    gap = max(1, pixels.shape[2] // 16)  # is still seen when the sheet is made smaller
    cells = np.pad(pixels, [(0, -len(pixels) % columns), (0, gap), (0, gap), (0, 0)])
    return rearrange(cells, "(r c) h w k -> (r h) (c w) k", c=columns)[:-gap, :-gap]


def png(pixels: np.ndarray) -> str:
    """Opaque RGBA pixels (h, w, 4) as the address of an embedded PNG, one byte a pixel where all is grey."""
    grey = (pixels[..., :1] == pixels[..., 1:3]).all()
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

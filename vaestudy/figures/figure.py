"""What a notebook shows, with the numbers behind it: the style, the figure and the computed sentence.

Every object renders itself as HTML that reads on light and on dark paper, and puts its caption, its alternative
text and its data beside the HTML under `MIME`: a report's `results.json` is collected from executed notebooks.
"""

import base64
import html
import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from typing import Any, ClassVar

import matplotlib
import numpy as np
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from PIL import Image

from vaestudy.errors import InputError

MIME = "application/vnd.vaestudy+json"

# Told apart in every common colour blindness, and at 3:1 or more from white and from the dark page.
PALETTE = ("#7784e2", "#bb3408", "#00a850", "#bb019f", "#805d53", "#99909b")
# Stand for the page's own text and paper: the SVG names them, the page decides.
INK, PAPER = "#0b0c0d", "#fdfcfb"

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "grid.linewidth": 0.7,
    "hatch.color": INK,
    "image.composite_image": False,
    "image.interpolation": "none",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "patch.edgecolor": INK,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """The study's matplotlib style, for the length of a `with` block or, as `@style()`, of a function."""
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(rows: int = 1, columns: int = 1, *, width: float | int = 6.6, height: float | int = 3.2, **subplots: Any):
    """A matplotlib figure of `width` x `height` inches, unknown to pyplot, and its axes as `subplots` returns them."""
    fig = Canvas(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(rows, columns, **subplots)


def ramp(count: int) -> list[tuple[float, ...]]:
    """Colours for an ordered family of curves (several β): teal to vermilion, legible on light and on dark."""
    colours = LinearSegmentedColormap.from_list("ramp", ["#00a08a", "#5b7fe0", "#a848c0", "#c03a10"])
    return [colours(i / max(count - 1, 1)) for i in range(count)]


def tile(images: Any, columns: int, gap: int | None = None) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1], array or tensor, as one uint8 RGBA sheet, row by row, the gaps transparent.

    The gap is a 16th of the images' side unless given, so that it is still seen when the sheet is made smaller.
    """
    pixels = rgba(images)
    n, h, w, _ = pixels.shape
    gap = max(1, w // 16) if gap is None else gap
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def show_images(axes: Any, images: Any, columns: int, gap: int | None = None) -> None:
    """Draw images (n, c, h, w) in [0, 1] into `axes` as a grid, pixel for pixel and without ticks."""
    axes.imshow(tile(images, columns, gap))
    axes.set_axis_off()


class Shown:
    """Something a notebook shows. `data` is what it rests on: any mixture of dicts, lists, arrays and numbers."""

    kind: ClassVar[str]
    caption: str
    alt: str
    data: Any

    def __post_init__(self):
        if not self.caption.strip() or not self.alt.strip():
            raise InputError(f"a {self.kind} needs a caption and an alternative text: give both")

    def body(self) -> str:
        """The HTML inside of the `<figure>`, above its caption."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return f'<figure class="{self.kind}">{self.body()}{caption}</figure>'

    def __str__(self) -> str:
        return f"{self.caption}\n{self.alt}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = {"kind": self.kind, "caption": self.caption, "alt": self.alt, "data": as_json(self.data)}
        return {"text/html": self._repr_html_(), "text/plain": str(self), MIME: shown}


@dataclass(frozen=True, eq=False)
class Figure(Shown):
    """A matplotlib figure with its caption, a sentence for those who cannot see it, and the numbers it draws."""

    fig: Canvas
    caption: str
    alt: str
    data: Any
    kind: ClassVar[str] = "figure"

    @cached_property
    def svg(self) -> str:
        """The figure as an `<svg>` element, the same bytes each time, its ink and paper left to the page."""
        for artist in self.fig.findobj(lambda artist: isinstance(artist, PathCollection | QuadMesh)):
            if np.size(artist.get_array()) > 1000 or len(artist.get_offsets()) > 1000:
                artist.set_rasterized(True)
        buffer = io.StringIO()
        # The salt goes into the names of the clip paths, which must differ between the figures of a page.
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.caption}):
            self.fig.savefig(buffer, format="svg", dpi=160, metadata=dict.fromkeys(("Date", "Creator")))
        return _inline(buffer.getvalue(), self.alt)

    def body(self) -> str:
        return f'<div class="wide" style="overflow-x:auto">{self.svg}</div>'


def _inline(svg: str, alt: str) -> str:
    """Make matplotlib's stand-alone SVG fit for the inside of a page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, count=1, flags=re.S)  # its `*` would reach the whole page
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, system-ui, sans-serif)", svg)
    svg = re.sub(r"\s*\n", " ", svg).replace("> <", "><")
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, Canvas)")
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    size = f"width:100%;max-width:{width * 1.4:.0f}px;min-width:{min(width, 400):.0f}px;height:auto"
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(alt)}" '
        f'style="{size};stroke-linejoin:round;stroke-linecap:butt" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + svg[svg.index(">") + 1 :]


@dataclass(frozen=True, eq=False)
class Statement(Shown):
    """A sentence that was computed: its caption is the sentence, its data the numbers in it."""

    caption: str
    alt: str
    data: Any
    kind: ClassVar[str] = "statement"

    def _repr_html_(self) -> str:
        return f'<p class="statement">{html.escape(self.caption)}</p>'

    def __str__(self) -> str:
        return self.caption


def statement(text: str, **data: Any) -> Statement:
    """A computed sentence: `statement("β = {beta:g} costs {gap:.1f} nats.", beta=beta, gap=gap)`."""
    try:
        sentence = text.format(**data)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"the sentence {text!r} does not fit its numbers: {error!r}") from error
    sentence = re.sub(r"(?<![\w)])-(?=\d)", "−", sentence)
    return Statement(sentence, sentence, data)


def as_json(data: Any) -> Any:
    """`data` as JSON knows it: arrays and tensors as lists, floats to eight digits, what is not finite as None."""
    if data is None or isinstance(data, bool | str):
        return data
    if isinstance(data, int | np.integer):
        return int(data)
    if isinstance(data, float | np.floating):
        return float(f"{data:.8g}") if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): as_json(value) for key, value in data.items()}
    if is_dataclass(data):
        return as_json(asdict(data))
    if hasattr(data, "_asdict"):
        return as_json(data._asdict())
    if hasattr(data, "tolist"):
        return as_json(data.tolist())
    if isinstance(data, list | tuple):
        return [as_json(value) for value in data]
    return str(data)


def rgba(images: Any) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1], grey or colour, array or tensor, as opaque uint8 (n, h, w, 4)."""
    if hasattr(images, "detach"):
        images = images.detach().float().cpu().numpy()
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not np.isfinite(images).all():
        raise InputError(f"images must be finite and (n, 1 or 3, h, w), not {images.shape}")
    pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=3)


def png(pixels: np.ndarray) -> str:
    """Opaque RGBA pixels (h, w, 4) as the address of an embedded PNG, one byte a pixel where all is grey."""
    grey = (pixels[..., :1] == pixels[..., 1:3]).all()
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("L" if grey else "RGB").save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

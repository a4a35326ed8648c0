"""What a notebook shows, with the numbers behind it: any output, the figure and the statement."""

import html
import io
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, FileSystemLoader, Template
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from vaestudy.errors import InputError
from vaestudy.figures.draw import INK, PAPER, STYLE, Canvas
from vaestudy.files import plain
from vaestudy.words import readable

__all__ = ["MIME", "Figure", "Output", "statement"]

MIME = "application/vnd.vaestudy+json"
NO_METADATA = ("Creator", "Date", "Format", "Type")  # of an SVG
SENTENCES = ("answer", "statement")  # kinds without a caption below


@dataclass(eq=False)
class Output:
    """Something a notebook shows: HTML for light and dark paper, and under `MIME` the kind, caption, alt and data.

    A report's `results.json` is collected from what stands under `MIME` in executed notebooks.

    Attributes:
        kind: figure, player, decoder, table, headline, claims, provenance, records, statement or answer.
        markup: its HTML, without the caption.
        caption: what is shown.
        alt: what there is to see, for those who cannot see it.
        data: what it rests on: any mixture of dicts, lists, arrays, DataFrames and numbers.
        text: for a terminal, unless caption and alt do.
    """

    kind: str
    markup: str
    caption: str
    alt: str
    data: Any
    text: str = ""

    def __post_init__(self):
        for name in ("caption", "alt"):
            if not getattr(self, name).strip():
                raise InputError(f"a {self.kind} needs a caption and an alternative text: give both")
            setattr(self, name, readable(getattr(self, name)))

    def body(self) -> str:
        """The HTML above the caption."""
        return self.markup

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return self.markup if self.kind in SENTENCES else f'<figure class="{self.kind}">{self.body()}{caption}</figure>'

    def __str__(self) -> str:
        return self.text or f"{self.caption}\n{self.alt}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = {"kind": self.kind, "caption": self.caption, "alt": self.alt, "data": as_json(self.data)}
        return {"text/html": self._repr_html_(), "text/plain": str(self), MIME: shown}


class Figure(Output):
    """A matplotlib figure with its caption, a sentence for those who cannot see it, and the numbers it draws."""

    def __init__(self, fig: Canvas, caption: str, alt: str, data: Any):
        super().__init__("figure", "", caption, alt, data)
        self.fig = fig

    @cached_property
    def svg(self) -> str:
        """The figure as an `<svg>` element, the same bytes each time, its ink and paper left to the page."""
        for points in self.fig.findobj(PathCollection):
            if len(points.get_offsets()) > 1000:
                points.set_rasterized(True)
        for text in self.fig.findobj(Text):  # a name as long as a line would leave the axes no room
            text.set_text("\n".join(_short(line) for line in text.get_text().split("\n")))
        buffer = io.StringIO()
        # The ids of a page's figures must differ: matplotlib makes them of this salt and of what is drawn.
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.caption + self.alt}):
            self.fig.savefig(buffer, format="svg", dpi=160, metadata=dict.fromkeys(NO_METADATA))
        return _inline(buffer.getvalue(), self.alt)

    def body(self) -> str:
        """The figure in a region that scrolls where a page is narrow."""
        return f'<div class="wide" style="overflow-x:auto">{self.svg}</div>'


# A hundredth of a point is far below what a screen shows, and a third of a page of points.
_DECIMALS = re.compile(r"\d+\.\d{3,}")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _inline(svg: str, alt: str) -> str:
    """Make matplotlib's stand-alone SVG fit for the inside of a page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, count=1, flags=re.S)  # its `*` would reach the whole page
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, system-ui, sans-serif)", svg)
    svg = re.sub(r"\s*\n", " ", svg).replace("> <", "><")
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda match: _DECIMALS.sub(_rounded, match[0]), svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, Canvas)")
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    size = f"width:100%;max-width:{width * 1.4:.0f}px;min-width:{width * 1.1:.0f}px;height:auto"
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(alt)}" '
        f'style="{size};stroke-linejoin:round;stroke-linecap:butt" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + svg[svg.index(">") + 1 :]


def statement(text: str, /, **data: Any) -> Output:
    """A computed sentence: `statement("β = {beta:g} costs {gap:.1f} nats.", beta=beta, gap=gap)`."""
    try:
        sentence = readable(text.format(**data))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"the sentence {text!r} does not fit its numbers: {error!r}") from error
    return Output("statement", f'<p class="statement">{html.escape(sentence)}</p>', sentence, sentence, data, sentence)


@cache
def template(path: Path) -> Template:
    """A template of a page or of a part of one; what it is given is escaped."""
    return Environment(
        loader=FileSystemLoader(path.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template(path.name)


def render(name: str, **context: Any) -> str:
    """One of this room's templates, in a line."""
    return template(Path(__file__).parent / "templates" / f"{name}.html.j2").render(**context)


def as_json(data: Any) -> Any:
    """`data` as JSON knows it: tables as rows, arrays as lists, floats to eight digits, what is not finite as None."""
    text = json.dumps(data, default=lambda x: x.to_dict("records") if isinstance(x, pd.DataFrame) else plain(x))
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.8g}"), parse_constant=lambda _: None)

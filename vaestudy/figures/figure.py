"""What a notebook shows, with the numbers behind it: any output, the figure and the statement."""

import html
import io
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.collections import PathCollection
from matplotlib.text import Text

from vaestudy.errors import InputError
from vaestudy.figures.draw import INK, PAPER, STYLE, Canvas
from vaestudy.files import plain
from vaestudy.words import readable

__all__ = ["MIME", "Figure", "Output", "statement"]

MIME = "application/vnd.vaestudy+json"
LONGEST = 44  # letters of a line in a figure: a longer one would leave the axes no room


@dataclass(eq=False)
class Output:
    """Something a notebook shows: HTML, and under `MIME` kind, caption, alt and data, of which `results.json` is made.

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
        if not (self.caption.strip() and self.alt.strip()):
            raise InputError(f"a {self.kind} needs a caption and an alternative text: give both")
        self.caption, self.alt = readable(self.caption), readable(self.alt)

    def _repr_html_(self) -> str:
        if self.kind in ("answer", "statement"):  # the sentence is all there is
            return self.markup
        return f'<figure class="{self.kind}">{self.markup}<figcaption>{html.escape(self.caption)}</figcaption></figure>'

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

    def _repr_html_(self) -> str:
        self.markup = f'<div class="wide" style="overflow-x:auto">{self.svg}</div>'  # scrolls on a narrow page
        return super()._repr_html_()

    @cached_property
    def svg(self) -> str:
        """The figure as an `<svg>` element, the same bytes each time, its ink and paper left to the page."""
        for points in self.fig.findobj(PathCollection):
            if len(points.get_offsets()) > 1000:
                points.set_rasterized(True)
        for text in self.fig.findobj(Text):
            lines = text.get_text().split("\n")
            text.set_text("\n".join(line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…" for line in lines))
        buffer = io.StringIO()
        # The ids of a page's figures must differ: matplotlib makes them of this salt and of what is drawn.
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.caption + self.alt}):
            self.fig.savefig(buffer, format="svg", dpi=160)
        svg = buffer.getvalue().strip()
        # The style's `*` would reach the whole page.
        svg = re.sub(r"\s*<(metadata|style)\b[^>]*>.*?</\1>", "", svg[svg.index("<svg") :], flags=re.S)
        used = set(re.findall(r"#([\w.-]+)", svg))
        svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
        svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, system-ui, sans-serif)", svg)
        svg = re.sub(r"\s*\n", " ", svg).replace("> <", "><")
        svg = re.sub(r' (?:d|x|y)="[^"]*"', _rounded, svg)
        svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper, Canvas)")
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
        head = (
            f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(self.alt)}" '
            f'style="width:100%;max-width:{width * 1.4:.0f}px;min-width:{width * 1.1:.0f}px;height:auto;'
            'stroke-linejoin:round;stroke-linecap:butt" '
            'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        )
        return head + svg[svg.index(">") + 1 :]


def _rounded(places: re.Match[str]) -> str:
    """An attribute, its numbers to a hundredth of a point, which no screen shows: a third of a page of points."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{round(float(number[0]), 2):.12g}", places[0])


def statement(text: str, /, **data: Any) -> Output:
    """A computed sentence: `statement("β = {beta:g} costs {gap:.1f} nats.", beta=beta, gap=gap)`."""
    try:
        sentence = readable(text.format(**data))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"the sentence {text!r} does not fit its numbers: {error!r}") from error
    return Output("statement", f'<p class="statement">{html.escape(sentence)}</p>', sentence, sentence, data, sentence)


@cache
def _templates(room: str) -> Environment:
    return Environment(loader=PackageLoader(f"vaestudy.{room}"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def render(name: str, room: str = "figures", **context: Any) -> str:
    """A template of a room, in which what it is given is escaped."""
    return _templates(room).get_template(f"{name}.html.j2").render(**context)


def as_json(data: Any) -> Any:
    """`data` as JSON knows it: tables as rows, arrays as lists, floats to eight digits, what is not finite as None."""
    text = json.dumps(data, default=lambda x: x.to_dict("records") if isinstance(x, pd.DataFrame) else plain(x))
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.8g}"), parse_constant=lambda _: None)

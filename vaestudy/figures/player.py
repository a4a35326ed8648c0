"""Moving pictures for a page that has no kernel: strips of images under one slider."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from vaestudy.errors import InputError
from vaestudy.figures.draw import png, rgba
from vaestudy.figures.figure import Captioned
from vaestudy.words import readable

__all__ = ["Player", "player"]

_SIDE = 96  # of an image, in CSS pixels
# `--f` is the frame in view; the handlers set it, the style of each strip reads it.
_SHOW = (
    "const p=this.closest('.play'),t=p.dataset.steps.split('\\n')[this.value];"
    "p.style.setProperty('--f',this.value);p.querySelector('output').value=t;this.setAttribute('aria-valuetext',t)"
)
_PLAY = (
    "const b=this,s=b.closest('.play').querySelector('input');let d=1;"
    "if(b.t){clearInterval(b.t);b.t=0}else b.t=setInterval(()=>{"
    "if(+s.value+d>+s.max||+s.value+d<0)d=-d;s.value=+s.value+d;s.oninput()},120);"
    "b.textContent=b.t?'Pause':'Play'"
)


@dataclass(frozen=True, eq=False)
class Player(Captioned):
    """Image strips that move together, with a slider and a play button whose handlers are all the script there is."""

    strips: np.ndarray = field(repr=False)  # uint8 (strips, frames, h, w, 4)
    caption: str
    alt: str
    data: Any
    labels: Sequence[str]
    steps: Sequence[str]
    slider: str
    kind: ClassVar[str] = "player"

    @property
    def opening(self) -> int:
        """The frame in view at first: the one whose emptiest image has most to see."""
        return int(self.strips[..., :3].std(axis=(2, 3, 4)).min(axis=0).argmax())

    def body(self) -> str:
        strips, frames, h, w, _ = self.strips.shape
        # One embedded PNG holds all: a strip a row, a frame a column.
        sheet = png(self.strips.transpose(0, 2, 1, 3, 4).reshape(strips * h, frames * w, 4))
        columns = math.ceil(strips / math.ceil(strips / 7))  # rows of about the same length
        view = (
            f"aspect-ratio:{w}/{h};background-image:var(--sheet);image-rendering:pixelated;"
            f"background-size:{frames * 100}% {strips * 100}%;"
            f"background-position:calc(var(--f)*{100 / max(frames - 1, 1):.6g}%) "
        )
        # On paper, all frames of a strip in a row.
        roll = (
            f"display:none;aspect-ratio:{frames * w}/{h};background-image:var(--sheet);image-rendering:pixelated;"
            f"background-size:100% {strips * 100}%;"
        )
        cells = "".join(
            f'<div style="flex:0 1 {_SIDE}px;text-align:center;font-size:.8em">'
            f'<div class="view" style="{view}{at}%"></div><div class="roll" style="{roll}background-position:0 {at}%">'
            f"</div>{html.escape(label)}</div>"
            for at, label in zip(np.linspace(0, 100, strips).round(4), self.labels, strict=True)
        )
        steps, first = [html.escape(step) for step in self.steps], self.opening
        return (
            f'<div class="play" data-steps="{chr(10).join(steps)}" style="--f:{first};--sheet:url({sheet})">'
            f'<div role="img" aria-label="{html.escape(self.alt)}" style="display:flex;flex-wrap:wrap;gap:8px;'
            f'justify-content:center;max-width:{columns * (_SIDE + 8)}px">{cells}</div>'
            '<p class="controls" style="display:flex;gap:10px;align-items:center;margin:8px 0">'
            f'<button type="button" onclick="{_PLAY}">Play</button>'
            f'<input type="range" min="0" max="{frames - 1}" value="{first}" aria-label="{html.escape(self.slider)}" '
            f'aria-valuetext="{steps[first]}" style="flex:1;max-width:20rem" oninput="{_SHOW}">'
            f"<output>{steps[first]}</output></p></div>"
        )


def player(
    frames: Any,
    caption: str,
    alt: str,
    data: Any,
    *,
    labels: Sequence[str],
    steps: Sequence[str],
    slider: str = "frame",
) -> Player:
    """Image strips (strips, frames, c, h, w) in [0, 1] that play side by side: one strip for each latent, say.

    `labels` names the strips, `steps` the frames, and `slider` what the steps are values of.
    """
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[:2] != (len(labels), len(steps)):
        raise InputError(f"frames {shape} must be ({len(labels)} labels, {len(steps)} steps, c, h, w)")
    pixels = rgba(frames.reshape(-1, *shape[2:]))
    pixels = pixels.reshape(*shape[:2], *pixels.shape[1:])
    labels, steps = (tuple(map(readable, texts)) for texts in (labels, steps))
    return Player(pixels, caption, alt, data, labels, steps, slider)

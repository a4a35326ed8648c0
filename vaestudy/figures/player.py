"""Moving pictures for a page that has no kernel: strips of images under one slider."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vaestudy.errors import InputError
from vaestudy.figures.draw import png, rgba
from vaestudy.figures.figure import Output, render
from vaestudy.words import readable

__all__ = ["player"]


def player(
    frames: Any, caption: str, alt: str, data: Any, *, labels: Sequence[str], steps: Sequence[str],
    slider: str = "frame",
) -> Output:  # fmt: skip
    """Image strips (strips, frames, c, h, w) in [0, 1] that play side by side: one strip for each latent, say.

    It opens with the frame whose emptiest image has most to see. `labels` names the strips, `steps` the frames, and
    `slider` what the steps are values of.
    """
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[:2] != (len(labels), len(steps)):
        raise InputError(f"frames {shape} must be ({len(labels)} labels, {len(steps)} steps, c, h, w)")
    pixels = rgba(frames.reshape(-1, *shape[2:]))
    pixels = pixels.reshape(*shape[:2], *pixels.shape[1:])
    strips, count, h, w, _ = pixels.shape
    body = render(
        "player",
        alt=readable(alt),
        # One embedded PNG holds all: a strip a row, a frame a column.
        sheet=png(pixels.swapaxes(1, 2).reshape(strips * h, count * w, 4)),
        size=(w, h),
        places=list(zip(map(readable, labels), np.linspace(0, 100, strips).round(4), strict=True)),
        steps=list(map(readable, steps)),
        first=int(pixels[..., :3].std(axis=(2, 3, 4)).min(axis=0).argmax()),
        slider=slider,
        columns=math.ceil(strips / math.ceil(strips / 7)),  # rows of about the same length
    )
    return Output("player", body, caption, alt, data)

"""Arrays in, a figure and its alternative sentence out."""

from vaestudy.figures.figure import (
    INK,
    MIME,
    PALETTE,
    PAPER,
    Figure,
    Shown,
    Statement,
    canvas,
    ramp,
    show_images,
    statement,
    style,
    tile,
)
from vaestudy.figures.player import Player, player
from vaestudy.figures.table import Headline, Provenance, Table, headline, number, provenance, table

__all__ = [
    "INK",
    "MIME",
    "PALETTE",
    "PAPER",
    "Figure",
    "Headline",
    "Player",
    "Provenance",
    "Shown",
    "Statement",
    "Table",
    "canvas",
    "headline",
    "number",
    "player",
    "provenance",
    "ramp",
    "show_images",
    "statement",
    "style",
    "table",
    "tile",
]

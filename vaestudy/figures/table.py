"""Tables of numbers, and those that a report gathers from its notebooks: claims, headline and provenance."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from vaestudy import words
from vaestudy.errors import InputError
from vaestudy.figures.figure import Captioned

__all__ = ["HEADLINE", "Headline", "Provenance", "Table", "claims", "headline", "provenance", "table"]

HEADLINE = ("quantity", "ours", "published", "source")
CLAIM = {"id", "claim", "source", "n", "effect", "interval", "verdict", "decidable", "unit", "exploratory", "reason"}
Rows = pd.DataFrame | Iterable[Mapping]


@dataclass(frozen=True, eq=False)
class Table(Captioned):
    """Rows as dicts; the columns are their keys in order of first appearance, and the first one names the rows."""

    data: list[dict]
    caption: str
    alt: str
    formats: Mapping[str, str] = field(default_factory=dict)
    kind: ClassVar[str] = "table"

    @property
    def shown(self) -> list[dict]:
        """The rows that the page shows."""
        return self.data

    @property
    def cells(self) -> pd.DataFrame:
        """The table's text; the numbers of a column have the same decimals."""
        frame = pd.DataFrame(self.shown, dtype=object)
        return frame.apply(_texts, formats=self.formats).rename(columns=words.label)

    def body(self) -> str:
        text = self.cells
        number = [' class="number"' if text[name].map(_is_number).any() else "" for name in text]

        def row(values: Iterable[str], head: str, rest: str) -> str:
            tags = [head, *[rest] * (len(number) - 1)]
            # A header without words says nothing to a screen reader: an empty one becomes a plain cell.
            tags = [tag if value else "td" for tag, value in zip(tags, values, strict=True)]
            cells = zip(tags, number, values, strict=True)
            return "".join(f"<{tag}{kind}>{html.escape(value)}</{tag[:2]}>" for tag, kind, value in cells)

        head = row([str(name) for name in text], 'th scope="col"', 'th scope="col"')
        rows = "</tr><tr>".join(row(values, 'th scope="row"', "td") for values in text.to_numpy())
        table = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{rows}</tr></tbody></table>"
        return f'<div class="wide" style="overflow-x:auto">{table}</div>'

    def __str__(self) -> str:
        return f"{self.caption}\n{self.cells.to_string(index=False)}"


class Headline(Table):
    """A stage's rows on the report's first page."""

    kind: ClassVar[str] = "headline"

    @property
    def shown(self) -> list[dict]:
        return [{name: row[name] for name in HEADLINE} for row in self.data]


class Claims(Table):
    """Claims with their verdicts; `data` holds them as `vaestudy.claims.evaluate` gives them."""

    kind: ClassVar[str] = "claims"

    @property
    def shown(self) -> list[dict]:
        return [
            {
                "claim": f"{claim['id']} {claim['claim']}",
                "verdict": words.verdict(claim),
                "effect, 95 % interval": words.effect(claim),
                "models": claim["n"],
                "how sure": words.how_sure(claim),
                "published": claim.get("published"),
                "source": claim["source"],
            }
            for claim in self.data
        ]


class Provenance(Table):
    """What made the numbers, a row a run: what they share is said once, so that a column stands for a difference."""

    kind: ClassVar[str] = "provenance"

    def body(self) -> str:
        own = [{k: v for k, v in row.items() if k not in self.shared} for row in self.data]
        return self.said() + (Table(own, self.caption, self.alt).body() if any(own) else "")

    @property
    def shared(self) -> dict[str, Any]:
        """What all runs have in common."""
        return {k: v for k, v in self.data[0].items() if all(row.get(k) == v for row in self.data)}

    def said(self) -> str:
        """The paragraph of what all runs have in common."""
        text = " · ".join(html.escape(f"{k} {cell(v)}") for k, v in self.shared.items() if v is not None)
        return f'<p class="shared">{text}</p>'


def table(rows: Rows, caption: str, alt: str = "", formats: Mapping[str, str] | None = None) -> Table:
    """A table from dicts or a DataFrame. The digits of a column follow from its values, unless `formats` says ".1f"."""
    return _make(Table, rows, caption, alt, formats)


def claims(rows: Sequence[dict[str, Any]], caption: str = "") -> Claims:
    """The claims of a page from `vaestudy.claims.evaluate`, and under "published" what the published evidence says."""
    rows = [dict(row) for row in rows]
    if not rows or any(not set(row) >= CLAIM for row in rows):
        raise InputError(f"claims are rows with the keys {', '.join(sorted(CLAIM))}")
    caption = caption or "The claims of this page, each by the test that was fixed before the run."
    return _make(Claims, rows, caption, words.verdicts(rows))


def headline(rows: Rows, caption: str = "This stage's headline numbers.") -> Headline:
    """A stage's rows on the report's first page: dicts with the keys of `HEADLINE`.

    `ours` and `published` are numbers or text ("0.43 ± 0.02"); what nobody has published is None. A row may have
    `values` as well, one number a model, and the `digits` printed: another run of the report is compared by them.
    """
    made = _make(Headline, rows, caption)
    for row in made.data:
        if set(row) - {"values", "digits"} != set(HEADLINE):
            raise InputError(f"a headline row has the keys {', '.join(HEADLINE)}, not {', '.join(row)}")
    order = (*HEADLINE, "values", "digits")
    return _make(Headline, [{name: row[name] for name in order if name in row} for row in made.data], caption)


def provenance(rows: Rows, caption: str = "The runs behind this page.") -> Provenance:
    """What made each run: dicts of run, commit, device, seed, seconds, data and versions (a dict is spelt out)."""
    made = _make(Provenance, rows, caption)
    # A notebook's file keeps its objects by the alphabet; the run comes first, and its figures last.
    order = [sorted(row.items(), key=lambda item: (item[0] != "run", isinstance(item[1], float))) for row in made.data]
    return _make(Provenance, [dict(row) for row in order], caption)


def _make(kind: type, rows: Rows, caption: str, alt: str = "", formats: Mapping | None = None) -> Any:
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else [dict(row) for row in rows]
    if not rows:
        raise InputError(f"the table {caption!r} has no rows")
    return kind(rows, caption, alt or caption, formats or {})


def _texts(column: pd.Series, formats: Mapping[str, str]) -> pd.Series:
    """The cells of a column: by its format, or with the decimals that fit all of its numbers."""
    places = words.column(column)
    spec = formats.get(column.name, "" if places is None else f",.{places}f")
    return column.map(lambda value: cell(value, spec if isinstance(value, float) or column.name in formats else ""))


def cell(value: Any, spec: str = "") -> str:
    """The text of one cell: numbers by `spec` or by `words.number`, dicts spelt out, checksums by their head."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    is_number = isinstance(value, int | float | np.number)
    if value is None or (is_number and math.isnan(value)):
        return "–"
    if is_number:
        return words.readable(format(value, spec)) if spec and math.isfinite(value) else words.number(value)
    return words.readable(str(value)[:12] if re.fullmatch("[0-9a-f]{32,}", str(value)) else str(value))


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[−+]?(\d[\d.,]*(e−?\d+)?|∞)( ± [\d.]+)?", text))

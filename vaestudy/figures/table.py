"""Tables of numbers, and the two that a report gathers from its notebooks: the headline and the provenance."""

import html
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from vaestudy.errors import InputError
from vaestudy.figures.figure import Captioned, with_minus

__all__ = ["HEADLINE", "Headline", "Provenance", "Table", "headline", "number", "provenance", "table"]

HEADLINE = ("quantity", "ours", "published", "source")
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
    def cells(self) -> pd.DataFrame:
        """The table's text."""
        frame = pd.DataFrame(self.data, dtype=object)
        return frame.apply(lambda column: column.map(lambda value: cell(value, self.formats.get(column.name))))

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

    def body(self) -> str:
        return Table([{name: row[name] for name in HEADLINE} for row in self.data], self.caption, self.alt).body()


class Provenance(Table):
    """What made the numbers, one row per run: at the foot of its page and on the report's first page."""

    kind: ClassVar[str] = "provenance"

    def body(self) -> str:
        # What all runs share is said once, so that a column stands for a difference.
        shared = {k: v for k, v in self.data[0].items() if all(row.get(k) == v for row in self.data)}
        own = [{k: v for k, v in row.items() if k not in shared} for row in self.data]
        text = " · ".join(html.escape(f"{k} {cell(v)}") for k, v in shared.items() if v is not None)
        table = Table(own, self.caption, self.alt, self.formats).body() if any(own) else ""
        return f'<p class="shared">{text}</p>{table}'


def table(rows: Rows, caption: str, alt: str = "", formats: Mapping[str, str] | None = None) -> Table:
    """A table from dicts or a DataFrame. A number shows four significant digits unless `formats` says ".1f", say."""
    return _make(Table, rows, caption, alt, formats)


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


def number(value: float | int | np.number, digits: int = 4) -> str:
    """A number for people: `digits` significant ones, whole from 10^(digits-1) on, a power of ten below 0.001."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0 or isinstance(value, int | np.integer) or abs(value) >= 10 ** (digits - 1):
        return with_minus(f"{value + 0:,.0f}")  # + 0 turns −0 into 0
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return with_minus(f"{mantissa}e{int(exponent)}")
    return with_minus(f"{value:#.{digits}g}".rstrip("."))


def cell(value: Any, spec: str | None = None) -> str:
    """The text of one cell: numbers by `spec` or by `number`, dicts spelt out, checksums by their head."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    is_number = isinstance(value, int | float | np.number)
    if value is None or (is_number and math.isnan(value)):
        return "–"
    if is_number:
        return with_minus(format(value, spec)) if spec else number(value)
    return with_minus(str(value)[:12] if re.fullmatch("[0-9a-f]{32,}", str(value)) else str(value))


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[−+]?(\d[\d.,]*(e−?\d+)?|∞)( ± [\d.]+)?", text))

"""Tables of numbers, and the two that a report gathers from its notebooks: the headline and the provenance."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from vaestudy.errors import InputError
from vaestudy.figures.figure import Shown

HEADLINE = ("quantity", "ours", "published", "source")


@dataclass(frozen=True, eq=False)
class Table(Shown):
    """Rows as dicts; the columns are their keys in order of first appearance."""

    data: list[dict]
    caption: str
    alt: str
    formats: Mapping[str, str] = field(default_factory=dict)
    kind: ClassVar[str] = "table"

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for row in self.data for key in row))

    def cells(self) -> list[list[str]]:
        """The table's text, row by row."""
        return [[cell(row.get(name), self.formats.get(name)) for name in self.columns] for row in self.data]

    def body(self) -> str:
        numeric = [any(_reads_as_number(row.get(name)) for row in self.data) for name in self.columns]
        kinds = [' class="number"' if is_numeric else "" for is_numeric in numeric]
        names = zip(self.columns, kinds, strict=True)
        head = "".join(f'<th scope="col"{kind}>{html.escape(name)}</th>' for name, kind in names)
        rows = []
        for row in self.cells():
            first, *rest = (html.escape(text) for text in row)
            cells = "".join(f"<td{kind}>{text}</td>" for text, kind in zip(rest, kinds[1:], strict=True))
            rows.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f'<div class="wide" style="overflow-x:auto">{table}</div>'

    def __str__(self) -> str:
        lines = [self.columns, *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = ["  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.caption, *(line.rstrip() for line in lines)])


class Headline(Table):
    """A stage's rows on the report's first page."""

    kind: ClassVar[str] = "headline"


class Provenance(Table):
    """What made the numbers, one row per run: at the foot of its page and on the report's first page."""

    kind: ClassVar[str] = "provenance"

    def body(self) -> str:
        # What all runs share is said once, so that a column stands for a difference.
        shared = {k: v for k, v in self.data[0].items() if all(row.get(k) == v for row in self.data)}
        own = [{k: v for k, v in row.items() if k not in shared} for row in self.data]
        text = " · ".join(f"{html.escape(k)} {html.escape(cell(v))}" for k, v in shared.items() if v is not None)
        table = Table(own, self.caption, self.alt, self.formats).body() if any(own) else ""
        return f'<p class="shared">{text}</p>{table}'


def table(rows: Sequence[Mapping], caption: str, alt: str = "", formats: Mapping[str, str] | None = None) -> Table:
    """A table from dicts. A number shows four significant digits unless `formats` names its column's, as ".1f"."""
    return _make(Table, rows, caption, alt, formats)


def headline(rows: Sequence[Mapping], caption: str = "This stage's headline numbers.") -> Headline:
    """A stage's rows on the report's first page: dicts with the keys of `HEADLINE`.

    `ours` and `published` are numbers or text ("0.43 ± 0.02"); what nobody has published is None.
    """
    for row in rows:
        if set(row) != set(HEADLINE):
            raise InputError(f"a headline row has the keys {', '.join(HEADLINE)}, not {', '.join(row)}")
    return _make(Headline, [{name: row[name] for name in HEADLINE} for row in rows], caption)


def provenance(rows: Sequence[Mapping], caption: str = "The runs behind this page.") -> Provenance:
    """What made each run: dicts of run, commit, device, seed, seconds, data and versions (a dict is spelt out)."""
    # A notebook's file keeps its objects by the alphabet; the run comes first, and its figures last.
    return _make(Provenance, [dict(sorted(row.items(), key=_run_first)) for row in rows], caption)


def _run_first(item: tuple[str, Any]) -> tuple[bool, bool]:
    return item[0] != "run", isinstance(item[1], float)


def _make(kind: type, rows: Sequence[Mapping], caption: str, alt: str = "", formats: Mapping | None = None):
    if not rows:
        raise InputError(f"the table {caption!r} has no rows")
    return kind([dict(row) for row in rows], caption, alt or caption, formats or {})


def number(value: float | int | np.number, digits: int = 4) -> str:
    """A number for people: `digits` significant ones, whole from 10^(digits-1) on, a power of ten below 0.001."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if size == 0 or isinstance(value, int | np.integer) or size >= 10 ** (digits - 1):
        text = f"{value + 0:,.0f}"  # + 0 turns −0 into 0
    elif size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{value:.{digits - 1 - math.floor(math.log10(size))}f}"
    return text.replace("-", "−")


def cell(value: Any, spec: str | None = None) -> str:
    """The text of one cell: numbers by `spec` or by `number`, dicts spelt out, checksums by their head."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if _is_number(value):
        return format(value, spec).replace("-", "−") if spec else number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    text = re.sub(r"(?<![\w)])-(?=\d)", "−", str(value))
    return text[:12] if re.fullmatch("[0-9a-f]{32,}", text) else text


def _reads_as_number(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and bool(re.fullmatch(r"[-−+]?\d[\d.,]*( ± [\d.]+)?", value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)

"""Tables of numbers, and those that a report gathers from its notebooks: claims, headline, provenance and records."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vaestudy import words
from vaestudy.errors import InputError
from vaestudy.figures.figure import Output, render

__all__ = ["HEADLINE", "RECORDED", "claims", "headline", "provenance", "records", "shared", "table"]

HEADLINE = ("quantity", "ours", "published", "source")
CLAIM = {"id", "claim", "source", "n", "effect", "interval", "verdict", "decidable", "unit", "exploratory", "reason"}
# Columns of a record that say how its model was trained, by which records of one setting are told.
RECIPE = ("part", "piece", *words.SETTINGS)
RECORDED = ("experiment", *RECIPE[2:], "seeds", "models", "seconds", "file")  # the columns of `records`
FOLDERS = ("run", "file")  # columns of names that stay as they are
FORMATS = {"β": "g", "beta": "g", "seconds": ",.1f"}  # of columns that look the same in every table
NUMBER = r"[−+]?(\d[\d.,]*(e−?\d+)?|∞)( ± [\d.]+)?"  # how a cell reads that holds one
Rows = Sequence[Mapping[str, Any]]
Table = pd.DataFrame | Iterable[Mapping[str, Any]]


def table(
    rows: Table, caption: str, formats: Mapping[str, str] | None = None, once: Mapping[str, str] | None = None
) -> Output:
    """A table whose first column names the rows, without columns that have no value.

    The digits of a column follow from its values, unless `formats` says ".1f". One of `once` that is the same in every
    row is said above the table in the words given there.
    """
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else [dict(row) for row in rows]
    once, formats = once or {}, formats or {}
    same = _same_in_all([{name: row[name] for name in once if row.get(name) is not None} for row in rows])
    shown = [{name: value for name, value in row.items() if name not in same} for row in rows]
    before = _paragraph({once[name]: cell(value, formats.get(name, "")) for name, value in same.items()})
    return _make("table", rows, caption, shown, before=before, formats=formats)


def claims(
    rows: Rows, caption: str = "The claims of this page, each by the test that was fixed before the run."
) -> Output:
    """The claims of a page from `vaestudy.claims.evaluate`, and under "published" what the published evidence says."""
    if not rows or any(not set(row) >= CLAIM for row in rows):
        raise InputError(f"claims are rows with the keys {', '.join(sorted(CLAIM))}")
    shown = [
        {
            "claim": f"{claim['id']} {claim['claim']}",
            "verdict": words.verdict(claim),
            "effect, 95 % interval": words.effect(claim),
            "models": claim["n"],
            "how sure": words.how_sure(claim),
            "published": words.published(claim),
            "source": claim["source"],
        }
        for claim in rows
    ]
    return _make("claims", rows, caption, shown, alt=words.verdicts(rows))


def headline(rows: Rows, caption: str = "This stage's headline numbers.") -> Output:
    """A stage's rows on the report's first page: dicts with the keys of `HEADLINE`.

    `ours` and `published` are numbers or text ("0.43 ± 0.02"); what nobody has published is None. A row may have
    `values` as well, one number a model, and the `digits` printed: another run of the report is compared by them.
    """
    for row in rows:
        if set(row) - {"values", "digits"} != set(HEADLINE):
            raise InputError(f"a headline row has the keys {', '.join(HEADLINE)}, not {', '.join(row)}")
    shown = [{name: row[name] for name in HEADLINE} for row in rows]
    return _make("headline", [dict.fromkeys(HEADLINE) | row for row in rows], caption, shown)


def provenance(rows: Rows, caption: str = "The runs behind this page.", kind: str = "provenance") -> Output:
    """What made each run: dicts of run, commit, device, seed, seconds, data, versions; what all share is said once."""
    # A notebook's file keeps its objects by the alphabet; the run comes first, and its figures last.
    rows = [dict(sorted(row.items(), key=lambda item: (item[0] != "run", isinstance(item[1], float)))) for row in rows]
    same = _same_in_all(rows)
    own = [{name: value for name, value in row.items() if name not in same} for row in rows]
    return _make(kind, rows, caption, own, before=shared(rows))


def shared(rows: Rows) -> str:
    """The paragraph of what the rows of a table of provenance have in common."""
    return _paragraph({k: cell(v, FORMATS.get(k, "")) for k, v in _same_in_all(rows).items() if v is not None})


def _paragraph(same: Mapping[str, str]) -> str:
    text = " · ".join(html.escape(f"{words.label(name)} {value}") for name, value in same.items())
    return f'<p class="shared">{text}</p>' if text else ""


def _same_in_all(rows: Rows) -> dict[str, Any]:
    return {k: v for k, v in rows[0].items() if all(row.get(k) == v for row in rows)} if rows else {}


def records(models: pd.DataFrame) -> Output:
    """The trained models that judge the claims of a page, a row a setting, with the file of their records."""
    known = [name for name in RECIPE if name in models]
    rows = []
    for _, alike in models.astype(dict.fromkeys(known, object)).groupby(known, dropna=False, sort=False):
        # Beside records that lack a column its whole numbers are floats.
        row = {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in alike.iloc[0][known].items()}
        row = {name: value for name, value in row.items() if pd.notna(value)}
        part, piece = row.pop("part"), row.pop("piece")
        about = {"seeds": words.span(alike["seed"]), "models": len(alike), "seconds": float(alike["seconds"].sum())}
        about["file"] = f"records/{part}-{piece}.jsonl"
        rows.append({"experiment": words.PARTS.get(part, part), **row, **about})
    caption = f"{words.counted(len(models), 'model')} of the experiments that judge this page's claims."
    return provenance(rows, caption, "records") if rows else Output("records", "", caption, caption, rows)


def _make(
    kind: str, rows: Rows, caption: str, shown: Rows, *, alt: str = "", before: str = "",
    formats: Mapping[str, str] | None = None,
) -> Output:  # fmt: skip
    """A table of `shown`, whose data are the rows."""
    if not rows:
        raise InputError(f"the table {caption!r} has no rows")
    cells = pd.DataFrame(shown, dtype=object).dropna(axis=1, how="all")
    cells = cells.apply(_texts, formats=FORMATS | (formats or {})).rename(columns=words.label)
    kinds = [
        "code" if name in FOLDERS else "number" if cells[name].str.fullmatch(NUMBER).any() else "" for name in cells
    ]
    body = render("table", names=list(cells), kinds=kinds, rows=cells.to_numpy()) if kinds else ""
    text = f"{caption}\n{cells.to_string(index=False)}" if kinds else caption  # all is said before
    return Output(kind, before + body, caption, alt or caption, rows, text)


def _texts(column: pd.Series, formats: Mapping[str, str]) -> pd.Series:
    """The cells of a column: by its format, or with the decimals that fit all of its numbers."""
    if column.name in FOLDERS:
        return column.map(str)
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

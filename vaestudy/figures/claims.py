"""The claims of a page as a table: what was claimed, what came out, how sure that is, and what was published."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vaestudy.errors import InputError
from vaestudy.figures.table import Table, number

__all__ = ["Claims", "claims"]

KEYS = {"id", "claim", "source", "n", "effect", "interval", "verdict", "decidable", "unit", "exploratory", "reason"}


@dataclass(frozen=True, eq=False)
class Claims(Table):
    """Claims with their verdicts; `data` holds them as `vaestudy.claims.evaluate` gives them."""

    kind: ClassVar[str] = "claims"

    def body(self) -> str:
        return Table([shown(claim) for claim in self.data], self.caption, self.alt).body()

    def __str__(self) -> str:
        return str(Table([shown(claim) for claim in self.data], self.caption, self.alt))


def claims(rows: Sequence[dict[str, Any]], caption: str = "") -> Claims:
    """The claims of a page from `vaestudy.claims.evaluate`, and under "published" what the published evidence says."""
    rows = [dict(row) for row in rows]
    if not rows or any(not set(row) >= KEYS for row in rows):
        raise InputError(f"claims are rows with the keys {', '.join(sorted(KEYS))}")
    counted = Counter(row["verdict"] for row in rows)
    alt = f"Of {len(rows)} claims: {', '.join(f'{count} {verdict}' for verdict, count in counted.most_common())}."
    return Claims(rows, caption or "The claims of this page, each by the test that was fixed before the run.", alt)


def shown(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim as a row of the table."""
    row = {"claim": f"{claim['id']} {claim['claim']}", "verdict": verdict_in_words(claim)}
    row |= {"effect, 95 % interval": effect_in_words(claim), "models": claim["n"], "how sure": how_sure(claim)}
    return row | {"published": claim.get("published"), "source": claim["source"]}


def verdict_in_words(claim: dict[str, Any]) -> str:
    """The verdict; that of a run with changed parameters or toy sizes is exploratory."""
    decided = claim["verdict"] != "not tested"
    return f"{claim['verdict']} (exploratory)" if claim["exploratory"] and decided else claim["verdict"]


def effect_in_words(claim: dict[str, Any]) -> str | None:
    """The effect with its interval and unit, None where nothing was tested."""
    if claim["effect"] is None:
        return None
    low, high = (number(limit, 3) for limit in claim["interval"])
    return f"{number(claim['effect'], 3)} [{low}, {high}] {claim['unit']}".strip()


def how_sure(claim: dict[str, Any]) -> str:
    """Whether another machine would say the same; else the smallest effect that would have shown, or the reason."""
    if claim["decidable"]:
        return "the same on every machine"
    if claim["verdict"] in ("supported", "contradicted"):
        return "a tendency: another machine may not repeat it"
    least = claim.get("smallest_visible")
    return claim["reason"] or ("" if least is None else f"an effect of {number(least, 3)} would have shown")

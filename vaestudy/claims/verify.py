"""Does this run say what the published one says: its claims, its numbers and its data."""

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from vaestudy.errors import InputError

_SIDES = {"contradicted": -1, "not tested": 0, "undecided": 0, "supported": 1}


@dataclass(frozen=True)
class VerifyResult:
    """The comparison: one row a claim, number and file, one closing line, and whether all is as it should be."""

    table: pd.DataFrame
    line: str
    ok: bool


def verify(report: dict, published: dict) -> VerifyResult:
    """Compares a report's results.json with the published one.

    A claim agrees, is weaker or stronger (one side undecided) or reversed. Wrong are: a reversal; more weakenings among
    the claims published as decidable than a binomial with .05 gives at 1 %; a headline number outside the prediction
    interval of a new mean (its level is 1 - .01/k for k numbers; no narrower than the printed rounding; numbers of
    fewer than three models are shown and not judged); a checksum that differs. Raises InputError, in one line, for a
    report of another profile or version, and for one that is damaged or half made.
    """
    _check(report, "report")
    _check(published, "published report")
    for key in ("profile", "version"):
        if report[key] != published[key]:
            raise InputError(f"the report is of {key} {report[key]} and the published one of {published[key]}")
    ours = _answered(report)
    if lacking := [name for name in _answered(published) if name not in ours]:
        raise InputError(f"the report is half made: it has nothing on {', '.join(lacking[:5])}")
    claims, numbers = _pairs(report, published, "claims"), _pairs(report, published, "headline")
    judged = sum(theirs["n"] >= 3 for _, theirs in numbers)
    files = [(name, theirs, report["checksums"][name]) for name, theirs in published["checksums"].items()]
    table = pd.DataFrame(
        [("claim", there["id"], there["verdict"], here["verdict"], _moved(here, there)) for here, there in claims]
        + [("number", there["quantity"], *_number(here, there, judged)) for here, there in numbers]
        + [("file", name, there, here, "same" if here == there else "differs") for name, there, here in files],
        columns=["kind", "what", "published", "here", "result"],
    )
    weakened = [_moved(here, there) == "weaker" for here, there in claims if there["decidable"]]
    allowed = int(stats.binom.ppf(0.99, len(weakened), 0.05))
    results = Counter(table["result"])
    faults = {
        "reversed": results["reversed"],
        f"decidable claims weaker where {allowed} may be": sum(weakened) if sum(weakened) > allowed else 0,
        "numbers outside": results["outside"],
        "files that differ": results["differs"],
    }
    wrong = ", ".join(f"{count} {fault}" for fault, count in faults.items() if count)
    summary = f"{results['agrees']} of {len(claims)} claims agree, {results['weaker']} weaker, "
    summary += f"{results['stronger']} stronger; {results['within']} of {judged} numbers within"
    return VerifyResult(table, f"not verified: {wrong} ({summary})" if wrong else f"verified: {summary}", not wrong)


def _moved(ours: dict, theirs: dict) -> str:
    """How the verdict of a claim moved from the published one to ours."""
    here, there = _SIDES[ours["verdict"]], _SIDES[theirs["verdict"]]
    if here == there:
        return "agrees"
    return "reversed" if here * there else "weaker" if there else "stronger"


def _number(ours: dict, theirs: dict, judged: int) -> tuple[str, str, str]:
    """A headline number as published with its prediction interval, as it is here, and where it lies."""
    digits = theirs["digits"]
    here = f"{ours['mean']:.{digits}f}"
    if theirs["n"] < 3:
        return f"{theirs['mean']:.{digits}f}", here, "not judged"
    t = stats.t.isf(0.01 / judged / 2, theirs["n"] - 1)
    half = max(t * theirs["std"] * math.sqrt(1 / theirs["n"] + 1 / ours["n"]), 0.5 * 10.0**-digits)
    within = abs(ours["mean"] - theirs["mean"]) <= half
    return f"{theirs['mean']:.{digits}f} ± {half:.{digits}f}", here, "within" if within else "outside"


def _pairs(report: dict, published: dict, part: str) -> list[tuple[dict, dict]]:
    """What both reports say of the same claim or number, in the published order."""
    ours = {_name(entry): entry for entry in report[part]}
    return [(ours[_name(entry)], entry) for entry in published[part] if _name(entry) in ours]


def _name(entry: dict) -> str:
    return entry["id"] if "id" in entry else entry["quantity"]


def _finite(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


_PARTS = {"profile": str, "version": str, "claims": list, "headline": list, "checksums": dict}
_FIELDS = {
    "claims": {
        "id": lambda value, _: isinstance(value, str),
        "verdict": lambda value, _: isinstance(value, str) and value in _SIDES,
        "decidable": lambda value, _: isinstance(value, bool),
    },
    "headline": {
        "quantity": lambda value, _: isinstance(value, str),
        "n": lambda value, _: isinstance(value, int) and value > 0,
        "digits": lambda value, _: isinstance(value, int) and value >= 0,
        "mean": lambda value, _: _finite(value),
        "std": lambda value, entry: entry["n"] < 3 or _finite(value),
    },
}


def _check(results: dict, name: str) -> None:
    """Raises InputError for what is no results.json, or where an entry lacks a value that can be read."""
    for part, kind in _PARTS.items():
        if not isinstance(results, dict) or not isinstance(results.get(part), kind):
            raise InputError(f"the {name} is damaged or no results.json: {part!r} is missing or no {kind.__name__}")
    for part, form in _FIELDS.items():
        for place, entry in enumerate(results[part]):
            for key, fits in form.items():
                if not isinstance(entry, dict) or not fits(entry.get(key), entry):
                    raise InputError(f"the {name} is damaged: entry {place} of {part!r} has no readable {key!r}")
        if len(set(map(_name, results[part]))) < len(results[part]):
            raise InputError(f"the {name} is damaged: {part!r} names one entry twice")


def _answered(results: dict) -> list[str]:
    """The files that a report has, the claims that it tested and its numbers."""
    entries = results["claims"] + results["headline"]
    return [*results["checksums"], *(_name(entry) for entry in entries if entry.get("verdict") != "not tested")]

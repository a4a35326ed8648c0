"""From records to verdicts: every claim's effect, interval and p, Holm's rule, and whether another machine agrees."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from vaestudy.claims.catalogue import CATALOGUE, Claim
from vaestudy.claims.forms import Form
from vaestudy.claims.records import Draw, NotTestable, Records, once, resampled
from vaestudy.claims.statistics import LEVEL, holm, smallest_visible

REPEATS = 1_000
REPEATED = 0.95


class _Tested(NamedTuple):
    """The models of a claim and its one-sided p; the two-sided one is twice the smaller of them."""

    draw: Draw
    up: float
    down: float
    p: float


def evaluate(
    records: pd.DataFrame, profile: str, *, exploratory: bool = False, catalogue: Sequence[Claim] = CATALOGUE
) -> list[dict]:
    """One JSON-ready row for each claim of the catalogue: effect, interval, p and verdict, or why it was not tested.

    `records`: the table that `vaestudy.claims` describes. `profile` names the run in the reasons. `exploratory` marks
    the verdicts of a run with changed parameters or other data. Verdicts are "supported", "contradicted", "undecided"
    or, with a `reason`, "not tested"; a family keeps its size whatever could be tested. `effect` is the difference (of
    an IUT: of the part nearest to its bound, less the bound); `interim` says of how many of the planned seeds. Raises
    InputError for records that do not fit together.
    """
    table, tested, rows = Records(records), {}, {}
    for claim in catalogue:
        try:
            tested[claim] = _tested(claim, table)
        except NotTestable as reason:
            rows[claim] = {"verdict": "not tested", "reason": f"{profile}: {reason}"}
    for family, size in Counter(claim.family for claim in catalogue).items():
        members = [claim for claim in tested if claim.family == family]
        for claim, *held in zip(members, *holm([tested[claim].p for claim in members], size), strict=True):
            rows[claim] = _judged(claim, tested[claim], *held)
    return [_row(claim, exploratory, rows[claim]) for claim in catalogue]


def _tested(claim: Claim, records: Records) -> _Tested:
    draw = once(records, claim.test.units(records))
    records.check_mixed(_places(draw), claim.test.named() | set(claim.free), claim.id)
    least = claim.test.least_p(draw)
    if 2 * least > LEVEL:
        raise NotTestable(f"the least p of {_models(draw)} models a setting is {2 * least:.2g}, above {LEVEL:g}")
    up, down = (float(p[0]) for p in claim.test.tails(draw))
    return _Tested(draw, up, down, min(1.0, 2 * min(up, down)))


def _judged(claim: Claim, tested: _Tested, adjusted: float, level: float) -> dict:
    """What a test says whose two-sided p is held against `level`."""
    test, draw, reason, visible = claim.test, tested.draw, None, None
    verdict = str(decisions(np.array(tested.up), np.array(tested.down), level))
    if tested.p <= level and verdict == "undecided":
        reason = "the effect is above 0 and yet below what would be enough"
    effect, se, df = (float(column[0]) for column in test.estimate(draw))
    if 2 * test.least_p(draw) <= level:
        visible = smallest_visible(se, df, level / 2 / test.choices(draw)) - test.margin
    else:
        reason = f"so few models cannot reach the level {level:.2g}"
    decidable = verdict != "undecided" and repeated(test, draw, level, verdict) >= REPEATED
    numbers = {"n": _models(draw), "effect": effect - test.margin, "interval": np.ravel(test.interval(draw)).tolist()}
    numbers |= {"p": tested.p, "p_adjusted": adjusted, "smallest_visible": visible}
    seeds = draw.records.frame["seed"].iloc[_places(draw)].nunique()
    numbers |= {"interim": f"{seeds} of {claim.models} seeds"} if seeds < claim.models else {}
    return numbers | {"verdict": verdict, "decidable": decidable, "reason": reason}


def repeated(test: Form, draw: Draw, level: float, verdict: str) -> float:
    """How often another run gives the same verdict: the share of 1,000 resamples of a resample of the models that do.

    The choice of a setting included. A p at the level rests on ten of the relabellings drawn (2,000 to 20,000), which
    blurs it by a third: a tenth of a standard error.
    """
    star = resampled(draw.records, draw.units, REPEATS, 2, np.random.default_rng(1))
    draws = int(np.clip(20 * test.choices(draw) / level, 1_999, 19_999))
    return float((decisions(*test.tails(star, draws), level) == verdict).mean())


def decisions(up: np.ndarray, down: np.ndarray, level: float) -> np.ndarray:
    """The verdict of each pair of one-sided p at a two-sided level; undecided too if both sides reach it."""
    supported, contradicted = 2 * up <= level, 2 * down <= level
    return np.select([supported & ~contradicted, contradicted & ~supported], ["supported", "contradicted"], "undecided")


def _models(draw: Draw) -> int:
    """How many models the smallest setting has."""
    return min(len(rows) for rows in draw.units.values())


def _places(draw: Draw) -> np.ndarray:
    """Where the models of all settings stand in the table."""
    return np.concatenate([rows.ravel() for rows in draw.units.values()])


def _row(claim: Claim, exploratory: bool, found: dict) -> dict:
    about = {"id": claim.id, "claim": claim.sentence, "source": claim.source, "test": claim.test.text}
    empty = dict.fromkeys(("n", "effect", "interval", "p", "p_adjusted", "smallest_visible", "interim"))
    empty |= {"family": claim.family, "margin": claim.margin, "verdict": None, "decidable": False}
    return about | empty | {"unit": claim.unit, "exploratory": exploratory, "reason": None} | found

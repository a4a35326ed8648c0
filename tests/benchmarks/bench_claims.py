"""How often the claims' tests are wrong where nothing is to be found, and how often a decidable verdict comes again.

The long form of tests/test_claims_calibration.py. Rates are shares of simulated runs; the peer of a false verdict is
its level, that of P2 its permutation alone.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_claims_calibration import ABOVE, EVERY, no_rise, table, two_settings, verdicts

from vaestudy.claims.choices import BestOf
from vaestudy.claims.forms import Form
from vaestudy.claims.records import Records, once
from vaestudy.claims.statistics import permutation_p, two_setting_p
from vaestudy.claims.verdicts import decisions, repeated

NULLS = ("unequal spread", "two humps", "shared seeds")


def rows() -> list[dict]:
    return [*false_verdicts(), *unequal_spread(), *decided_again()]


def false_verdicts() -> list[dict]:
    """Verdicts of either kind without a difference, and rises without a rise (a side of the two-sided level)."""
    result = []
    for models in (8, 10, 20):
        for null in NULLS:
            frame = table(two_settings(null, np.random.default_rng(models), 10_000 * models))
            for level in (0.05, 0.01):
                rate = 1 - verdicts(ABOVE, frame, 10_000, level)["undecided"]
                result.append(row(f"verdicts on two equal settings, {null}, n = {models}", rate, "the level", level))
        for null in ("fall", *NULLS):
            frame = table(no_rise(null, np.random.default_rng(models), 4_000 * models))
            for level in (0.05, 0.01):
                rate = verdicts(BestOf(EVERY, "score"), frame, 4_000, level)["supported"]
                result.append(row(f"rises among four β, {null}, n = {models}", rate, "half the level", level / 2))
    return result


def unequal_spread() -> list[dict]:
    """P2 beside its permutation alone, at equal means and standard deviations 2.5 to 1, as the pilot had."""
    result, runs = [], 20_000
    for models in (8, 10, 20):
        rng = np.random.default_rng(0)
        a, b = rng.normal(0, 2.5, (runs, models)), rng.normal(0, 1, (runs, models))
        for level in (0.01, 0.002):
            ours, alone = (
                float(np.mean(decisions(*test(a, b, None, 9_999), level) != "undecided"))
                for test in (two_setting_p, permutation_p)
            )
            name = f"verdicts at level {level}, spreads 2.5 to 1, n = {models}"
            result.append(row(name, ours, "the permutation alone", alone))
    return result


def decided_again() -> list[dict]:
    """Of the runs whose verdict is called decidable, those that a second run of the same truth decides likewise."""
    shape = {1: 0.0, 2: 0.3, 4: 0.8, 8: 1.0, 16: 0.9, 32: -0.5}
    pair = {1: 0.0, 4: 1.0}
    best = BestOf(EVERY, "score")
    return [
        line
        for most in (4.0, 2.0)
        for line in (
            again("two settings", ABOVE, pair, 10, 0.05, most, 600),
            again("two settings", ABOVE, pair, 10, 0.01, most, 600),
            again("two settings", ABOVE, pair, 20, 0.01, most, 600),
            again("the best of five β", best, shape, 10, 0.01, most, 400),
        )
    ]


def again(name: str, form: Form, shape: dict, models: int, level: float, most: float, pairs: int) -> dict:
    """True differences are drawn evenly from none to `most` times three standard errors.

    Up to four times, most of them are clear. Up to twice, few are large enough to come again in 95 of 100 runs: the
    decidable ones are then the lucky ones, the hardest case.
    """
    rng, seen = np.random.default_rng(models), []
    for size in rng.uniform(0, most * 3 * np.sqrt(2 / models), pairs):
        draws = [drawn(form, lambda part, size=size: rng.normal(part * size, 1, models), shape) for _ in range(2)]
        ours, theirs = (str(decisions(*form.tails(draw, 4_999), level)[0]) for draw in draws)
        if ours != "undecided" and repeated(form, draws[0], level, ours) >= 0.95:
            seen.append(theirs == ours)
    what = (
        f"decidable verdicts given again, {name}, n = {models}, level {level}, effects to {3 * most:g} standard errors"
    )
    return row(f"{what} ({len(seen)} of {pairs} pairs)", float(np.mean(seen)), "what decidable promises", 0.95)


def drawn(form: Form, scores: Callable[[float], np.ndarray], shape: dict):
    records = Records(table({beta: scores(part) for beta, part in shape.items()}))
    return once(records, form.units(records))


def row(name: str, rate: float, peer: str, peer_rate: float) -> dict:
    values = {"value": float(rate), "unit": "of runs", "peer_value": peer_rate, "ratio": float(rate) / peer_rate}
    return {"name": name, "peer": peer, **values}


if __name__ == "__main__":
    for line in rows():
        print("{name}: {value:.4f} {unit}; {peer}: {peer_value:.4f}; ratio {ratio:.2f}".format(**line))

"""How often the tests of claims are wrong where nothing is to be found, and how often they find what is there.

The short form of tests/benchmarks/bench_claims.py: fixed seeds, and bounds that a right rate passes in all but one of a
million draws.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaestudy.claims.choices import BestOf
from vaestudy.claims.forms import Above
from vaestudy.claims.records import Draw, Records, setting
from vaestudy.claims.verdicts import _verdicts

LEVEL = 0.05
EVERY = setting(part="sweep")
# Mean and standard deviation over seeds of L = 5 and of the nats, ten pilot models a β.
PILOT = {1: (0.65, 0.06, 9.6), 2: (0.68, 0.15, 7.8), 4: (0.79, 0.08, 6.1), 8: (0.84, 0.14, 4.4)}
PILOT |= {16: (0.88, 0.07, 2.6), 32: (0.53, 0.13, 0.9)}


def table(cells: dict, part: str = "sweep", **columns) -> pd.DataFrame:
    """Records whose scores are given for each β, in the order of the seeds; other columns likewise, or one for all."""
    frames = []
    for beta, scores in cells.items():
        more = {name: values[beta] if isinstance(values, dict) else values for name, values in columns.items()}
        frames.append(pd.DataFrame({"beta": beta, "score": scores, "seed": np.arange(len(scores)), **more}))
    return pd.concat(frames).assign(part=part, piece="one", cpu="any", record_version=1, metric_version=1)


def runs(form, frame: pd.DataFrame, count: int) -> Draw:
    """The models of a table dealt out to `count` runs of equal size, as samples that one call tests at once."""
    records = Records(frame)
    units = form.units(records)
    rows = {key: own.reshape(count, -1, *own.shape[1:]) for key, own in units.items()}
    return Draw(records, {key: own[0] for key, own in rows.items()}, rows, times=1)


def verdicts(form, frame: pd.DataFrame, count: int, level: float = LEVEL) -> pd.Series:
    """The share of each verdict over `count` runs."""
    found = pd.Series(_verdicts(*form.tails(runs(form, frame, count), 3_999), level))
    return found.value_counts(normalize=True).reindex(["supported", "contradicted", "undecided"], fill_value=0.0)


def bound(rate: float, count: int) -> float:
    """The share that a true rate stays below in all but one of a million simulations."""
    return stats.binom.isf(1e-6, count, rate) / count


def humps(rng, size: int, share: float = 0.5) -> np.ndarray:
    """Codes of three live latents or of four: two humps, mean .7 + .2 share."""
    return np.where(rng.random(size) < share, rng.normal(0.9, 0.03, size), rng.normal(0.7, 0.05, size))


def two_settings(null: str, rng, size: int) -> dict:
    """Scores at β = 1 and 4 without a difference in the mean."""
    if null == "unequal spread":
        return {1: rng.normal(0.8, 0.02, size), 4: rng.normal(0.8, 0.14, size)}
    if null == "two humps":
        return {1: humps(rng, size), 4: rng.normal(0.8, 0.04, size)}
    seeds = rng.normal(0, 0.07, size)  # shared seeds: what both settings have in common
    return {1: rng.normal(0.7, 0.07, size) + seeds, 4: rng.normal(0.7, 0.07, size) + seeds}


def no_rise(null: str, rng, size: int) -> dict:
    """Scores over β that do not rise above β = 1."""
    if null == "fall":
        means = {1: 0.7, 2: 0.7, 4: 0.6, 8: 0.4, 16: 0.25}
        return {beta: rng.normal(mean, 0.1 if mean > 0.25 else 0.001, size) for beta, mean in means.items()}
    return {beta: two_settings(null, rng, size)[4 if beta > 1 else 1] for beta in (1, 2, 4, 8, 16)}


ABOVE = Above((*EVERY, ("beta", 4)), (*EVERY, ("beta", 1)), "score")


@pytest.mark.parametrize("null", ["unequal spread", "two humps", "shared seeds"])
@pytest.mark.parametrize("models", [8, 20])
def test_two_equal_settings_rarely_get_a_verdict(null, models):
    count = 1_000
    found = verdicts(ABOVE, table(two_settings(null, np.random.default_rng(models), count * models)), count)
    assert 1 - found["undecided"] <= bound(LEVEL * 1.2, count)  # Welch's t at n = 8 holds its level within a fifth


@pytest.mark.parametrize("null", ["fall", "unequal spread", "two humps", "shared seeds"])
def test_without_a_rise_the_best_of_four_is_rarely_called_one(null):
    count = 500
    found = verdicts(BestOf(EVERY, "score"), table(no_rise(null, np.random.default_rng(1), count * 10)), count)
    assert found["supported"] <= bound(LEVEL / 2, count)
    assert found["contradicted"] <= bound(LEVEL / 2, count)

"""How often the tests of claims are wrong where nothing is to be found, and how often they find what is there.

The short form of tests/benchmarks/bench_claims.py: fixed seeds, and bounds that a right rate passes in all but one of a
million draws.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vaestudy.claims.choices import BestMoves, BestOf, Chosen
from vaestudy.claims.forms import Above, AllOf, OnCurve, Positive, Slope
from vaestudy.claims.records import Draw, Records, once, setting
from vaestudy.claims.verdicts import decisions, repeated

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
    found = pd.Series(decisions(*form.tails(runs(form, frame, count), 3_999), level))
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


def test_a_maximum_over_all_settings_would_miss_what_the_pairs_find():
    """Beside a collapsed setting a rise of 1.3 standard deviations is found in three of four runs of 10."""
    rng, count = np.random.default_rng(7), 300
    cells = {1: rng.normal(0.6, 0.1, count * 10), 4: rng.normal(0.73, 0.1, count * 10)}
    cells[16] = rng.normal(0.25, 0.001, count * 10)
    found = verdicts(BestOf(EVERY, "score"), table(cells), count, 2 * LEVEL)
    assert found["supported"] > 0.6


def pilot(rng, size: int) -> pd.DataFrame:
    """Gaussian models with the pilot's means and spreads."""
    cells = {beta: rng.normal(mean, spread, size) for beta, (mean, spread, _) in PILOT.items()}
    return table(cells, nats={beta: nats for beta, (_, _, nats) in PILOT.items()})


@pytest.mark.parametrize("held", [None, 0.5])
def test_ten_models_decide_the_pilots_rise_and_fall_and_three_never(held):
    form, level = BestOf(EVERY, "score", held=held), 0.01  # the strictest of five
    assert verdicts(form, pilot(np.random.default_rng(0), 200 * 10), 200, level)["supported"] > 0.95
    three = runs(form, pilot(np.random.default_rng(0), 50 * 3), 50)
    assert form.least_p(three) > level / 2
    assert np.all(decisions(*form.tails(three), level) == "undecided")


def test_a_choice_on_other_seeds_does_not_flatter_itself():
    rng, count = np.random.default_rng(4), 400
    cells = {beta: rng.normal(0.6, 0.1, count * 20) for beta in (1, 2, 4, 8, 16)}
    form, best = Chosen(EVERY, "score", "score", base=1.0), BestOf(EVERY, "score")
    effect = form.estimate(runs(form, table(cells), count)).effect
    assert abs(effect.mean()) < 5 * effect.std() / np.sqrt(count)
    assert 1 - verdicts(form, table(cells), count)["undecided"] <= bound(LEVEL, count)
    assert best.estimate(runs(best, table(cells), count)).effect.mean() > 0.01


def test_numbers_slopes_and_both_hold_their_level():
    rng, count = np.random.default_rng(6), 600
    cells = {beta: rng.standard_t(4, count * 10) for beta in (1, 4, 16)}
    frame = table(cells, nats=3.0)
    positive = [Positive((*EVERY, ("beta", beta)), "score") for beta in (1, 4)]
    assert 1 - verdicts(positive[0], frame, count)["undecided"] <= bound(LEVEL, count)
    assert verdicts(AllOf(tuple(positive)), frame, count)["supported"] <= bound(LEVEL / 2, count)
    assert verdicts(AllOf(tuple(positive)), frame, count)["contradicted"] <= bound(LEVEL / 2, count)
    assert verdicts(Slope(EVERY, "score", 0.0, 0.5), frame, count)["supported"] <= bound(LEVEL / 2, count)


def test_the_curve_at_the_same_nats_is_matched_and_a_deficit_is_found():
    rng, count = np.random.default_rng(8), 300
    nats = {1: 9.6, 4: 6.1, 16: 2.6, 32: 0.9}
    flat = table({beta: rng.normal(0.5, 0.1, 20 * count) + 0.02 * nats[beta] for beta in nats}, "flat", nats=nats)
    for deficit, verdict in ((0.05, "supported"), (0.25, "contradicted")):
        top = {16: rng.normal(0.5 + 0.02 * 4 - deficit, 0.1, 10 * count)}
        frame = pd.concat([flat, table(top, "top", nats=4.0)], ignore_index=True)
        form = OnCurve(setting(part="top"), "score", "nats", setting(part="flat"), "score", 0.05)
        found = verdicts(form, frame, count)
        if deficit == 0.05:  # the margin itself: the null
            assert max(found["supported"], found["contradicted"]) <= bound(LEVEL / 2 * 1.2, count)
        else:
            assert found[verdict] > 0.8


def best_moves(rng, size: int, moves: float) -> pd.DataFrame:
    """Scores whose best β grows as M to the power `moves`."""
    frames = []
    for latent_dim in (4, 10, 32):
        grid = 2.0 ** np.arange(-2, 5) * (4 if moves == 0 else latent_dim)
        best = 4 * (latent_dim if moves else 4)
        cells = {beta: rng.normal(0.8 - 0.05 * np.log(beta / best) ** 2, 0.03, size) for beta in grid}
        frames.append(table(cells).assign(latent_dim=latent_dim))
    return pd.concat(frames, ignore_index=True)


def test_where_the_best_beta_lies_moves_with_the_size_or_does_not():
    form, count = BestMoves(EVERY, "score"), 60
    moved = runs(form, best_moves(np.random.default_rng(0), count * 10, 1.0), count)
    assert form.estimate(moved).effect.mean() == pytest.approx(1, abs=0.1)
    assert np.mean(decisions(*form.tails(moved, 19_990), LEVEL) == "supported") > 0.95
    still = runs(form, best_moves(np.random.default_rng(0), count * 10, 0.0), count)
    assert form.estimate(still).effect.mean() == pytest.approx(0, abs=0.1)
    assert np.mean(decisions(*form.tails(still, 19_990), LEVEL) == "undecided") >= 1 - bound(0.1, count)


def test_what_is_called_decidable_is_decided_again():
    """Pairs of runs whose true difference is drawn evenly: of the decidable first ones, the second seldom differ."""
    rng, models, pairs = np.random.default_rng(9), 10, 60
    differences = rng.uniform(0, 4, pairs)
    cells = {beta: rng.normal(0, 1, (2, pairs, models)) for beta in (1, 4)}
    cells[4] += differences[:, None]
    kept = missed = 0
    for pair in range(pairs):
        here, there = (
            once(records, ABOVE.units(records))
            for records in (Records(table({b: cells[b][run, pair] for b in cells})) for run in (0, 1))
        )
        ours, theirs = (str(decisions(*ABOVE.tails(draw, 4_999), 0.05)[0]) for draw in (here, there))
        if ours != "undecided" and repeated(ABOVE, here, 0.05, ours) >= 0.95:
            kept, missed = kept + 1, missed + (theirs != ours)
    assert kept >= 20
    assert missed <= stats.binom.isf(1e-6, kept, 0.05)

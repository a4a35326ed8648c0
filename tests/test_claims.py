import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_claims_calibration import pilot

from vaestudy.claims import CATALOGUE, Claim, evaluate
from vaestudy.claims.choices import BestOf, Chosen
from vaestudy.claims.forms import Above, Positive, Slope
from vaestudy.claims.records import NotTestable, Records, once, setting
from vaestudy.errors import InputError

KEYS = {"id", "claim", "source", "test", "n", "effect", "interval", "p", "p_adjusted", "family", "margin", "verdict"}
KEYS |= {"smallest_visible", "decidable", "exploratory", "reason", "unit", "interim"}
EVERY = setting(part="sweep")


def sweep(models: int, seed: int = 0) -> pd.DataFrame:
    """The stage 2 sweep with the pilot's numbers: every score is that of L = 5, and the bound falls with β."""
    frame = pilot(np.random.default_rng(seed), models).rename(columns={"score": "higgins_5"})
    same = dict.fromkeys(("mig", "higgins_1", "higgins_64", "weak_higgins_5"), frame["higgins_5"])
    return frame.assign(part="sweep32", latent_dim=10, elbo=-30 - frame["beta"], **same)


def by_id(frame: pd.DataFrame) -> dict[str, dict]:
    """What a night says of each claim."""
    return {row["id"]: row for row in evaluate(frame, "night")}


def one(test, frame: pd.DataFrame, **more) -> dict:
    claim = Claim("0", "A sentence", "a source", test, "score", 10, "page", primary=True)
    return evaluate(frame, "night", catalogue=(replace(claim, **more),))[0]


def hierarchy(shares: dict, seeds: int = 8, **columns) -> pd.DataFrame:
    """The hierarchy under one schedule, with the top group's share of four nats at each β."""
    rng, frames = np.random.default_rng(0), []
    for beta, share in shares.items():
        top = np.clip(share + rng.normal(0, 0.02 if 0 < share < 1 else 0, seeds), 0, 1)
        frames.append(pd.DataFrame({"beta": beta, "seed": np.arange(seeds), "nats": 4.0, "top_nats": 4 * top}))
    return pd.concat(frames).assign(part="hierarchy", piece=0, cpu="any", record_version=1, metric_version=1, **columns)


def test_the_list_is_whole_and_names_every_claim_once():
    primary = [claim.id for claim in CATALOGUE if claim.primary]
    assert primary == [f"{page}.{place}" for page in (1, 2, 3) for place in (1, 2, 3, 4, 5)]
    assert [claim.id for claim in CATALOGUE if not claim.primary] == [
        *(f"2.{place}" for place in range(6, 15)),
        *(f"3.{place}" for place in range(6, 15)),
    ]
    sizes = pd.Series([claim.family for claim in CATALOGUE]).value_counts()
    assert sizes[["01_vae primary", "02_beta_vae primary", "03_nvae primary", "NVAE's devices"]].tolist() == [5] * 4
    assert {claim.id: claim.margin for claim in CATALOGUE if claim.margin} == {"1.2": 1.0, "1.3": 1.0, "3.4": 0.05}


def test_verdicts_of_the_pilot_are_decided_ready_for_json_and_the_same_again():
    rows = evaluate(sweep(10), "night")
    assert rows == evaluate(sweep(10).sample(frac=1, random_state=1), "night")
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert all(set(row) == KEYS for row in rows)
    rise = next(row for row in rows if row["id"] == "2.1")
    assert rise["verdict"] == "supported"
    assert rise["decidable"]
    assert rise["n"] == 10
    assert rise["interval"][0] < rise["effect"] < rise["interval"][1]
    assert rise["p_adjusted"] == pytest.approx(rise["p"] * 5)
    assert {row["verdict"] for row in rows if row["id"][0] != "2"} == {"not tested"}
    assert all(row["reason"].startswith("night: ") for row in rows if row["verdict"] == "not tested")


def test_a_difference_has_the_effect_interval_and_p_of_scipy():
    rng = np.random.default_rng(0)
    frame = sweep(10).query("beta <= 2").assign(score=np.concatenate([rng.normal(0, 1, 10), rng.normal(0.5, 1, 10)]))
    low, high = (frame.query(f"beta == {beta}")["score"].to_numpy() for beta in (1, 2))
    row = one(Above(setting(beta=2), setting(beta=1), "score"), frame)
    welch = stats.ttest_ind(high, low, equal_var=False)
    assert row["effect"] == pytest.approx(high.mean() - low.mean())
    np.testing.assert_allclose(row["interval"], welch.confidence_interval(0.95))
    assert row["verdict"] == "undecided"
    assert not row["decidable"]
    assert row["smallest_visible"] > 1
    assert row["p"] >= welch.pvalue
    # With one setting above the base there is nothing to choose, and the interval is the same.
    assert one(BestOf(setting(), "score"), frame)["interval"] == row["interval"]


def test_a_mean_has_the_interval_of_student():
    frame = sweep(10).query("beta == 1")
    row = one(Positive(setting(beta=1), "mig"), frame)
    np.testing.assert_allclose(row["interval"], stats.ttest_1samp(frame["mig"], 0).confidence_interval(0.95))


def test_a_verdict_is_interim_until_every_planned_seed_is_there():
    some, every = (by_id(sweep(seeds)) for seeds in (10, 20))
    assert some["2.1"]["interim"] == some["2.12"]["interim"] == "10 of 20 seeds"
    assert every["2.1"]["interim"] is None
    assert some["1.1"]["interim"] is None  # not tested


def test_a_margin_shifts_the_test_and_not_the_effect():
    frame = sweep(10).query("beta <= 2")
    frame["score"] = np.where(frame["beta"] == 2, -0.5, 0) + np.random.default_rng(0).normal(0, 0.1, 20)
    rows = {margin: one(Above(setting(beta=2), setting(beta=1), "score", margin), frame) for margin in (0.0, 0.2, 1.0)}
    assert [row["verdict"] for row in rows.values()] == ["contradicted", "contradicted", "supported"]
    assert [row["effect"] for row in rows.values()] == pytest.approx([rows[0.0]["effect"]] * 3)
    assert rows[1.0]["margin"] == 1.0
    assert rows[1.0]["smallest_visible"] == pytest.approx(rows[0.0]["smallest_visible"] - 1)


def test_pressure_moves_the_code_or_does_not():
    shares = {0.15: 0.0, 1: 0.1, 4: 0.3, 8: 0.6, 16: 0.95}
    frame = pd.concat(
        [
            hierarchy(shares, network="hierarchy", schedule="top_first"),
            hierarchy(dict.fromkeys(shares, 0.0), network="hierarchy", schedule="none"),
        ]
    )
    rows = by_id(frame)
    assert rows["3.2"]["verdict"] == "supported"
    assert rows["3.2"]["decidable"]
    x = np.log(list(shares))
    assert rows["3.2"]["effect"] == pytest.approx(np.polyfit(x, list(shares.values()), 1)[0], abs=0.01)
    assert rows["3.6"]["verdict"] == "contradicted"  # "does not": the slope is below .05
    assert rows["3.6"]["effect"] == 0
    assert rows["3.7"]["verdict"] == "not tested"


def test_a_slope_that_is_there_and_too_small_is_undecided():
    frame = hierarchy({1: 0.30, 4: 0.32, 16: 0.34}).assign(part="sweep")
    frame["top_nats"] = 4 * (0.3 + 0.01 * np.log(frame["beta"]) + 0.0002 * frame["seed"])
    row = one(Slope(EVERY, "top_nats / nats", enough=0.05, held=0.5), frame)
    assert row["verdict"] == "undecided"
    assert row["p"] < 0.01
    assert "below what would be enough" in row["reason"]


def test_settings_without_nats_are_left_out_of_a_slope():
    frame = hierarchy({1: 0.1, 4: 0.3, 8: 0.5, 16: 0.9}).assign(part="sweep")
    frame.loc[(frame["beta"] == 16) & (frame["seed"] == 3), "nats"] = 0.4
    records, form = Records(frame), Slope(EVERY, "top_nats", enough=0.05, held=0.5)
    assert next(iter(form.units(records).values())).shape == (8, 3)


def test_read_best_below_one_needs_every_setting():
    frame = hierarchy(dict.fromkeys((0.15, 0.5, 1, 4, 16), 0.0), 12, network="hierarchy", schedule="none")
    rng = np.random.default_rng(0)
    frame["all_linear_r2"] = np.where(frame["beta"] < 1, 0.9, 0.8) + rng.normal(0, 0.02, len(frame))
    row = by_id(frame)["3.5"]
    assert row["verdict"] == "supported"
    assert 0.05 < row["effect"] < 0.1  # the nearest of the three settings
    for verdict in ("undecided", "contradicted"):
        frame.loc[frame["beta"] == 4, "all_linear_r2"] += 0.1
        assert by_id(frame)["3.5"]["verdict"] == verdict


def test_both_is_judged_by_the_worse_part():
    frame = hierarchy({1: 0.0, 16: 0.5}, 12, network="hierarchy", schedule="top_first", top_live=2)
    rng = np.random.default_rng(0)
    frame["top_mig_rotated"] = 0.1
    frame["top_mig_draws"] = np.where(frame["beta"] == 16, 0.3, 0.28) + rng.normal(0, 0.02, len(frame))
    row = by_id(frame)["3.8"]
    assert row["verdict"] == "undecided"  # aligned at 16, yet not more than at 1
    assert row["effect"] < 0.06
    frame.loc[frame["beta"] == 1, "top_live"] = 0  # no live latent has no alignment
    assert by_id(frame)["3.8"]["verdict"] == "supported"


def test_the_choice_is_made_on_the_first_of_every_two_seeds():
    frame = sweep(20).assign(mig=0.0)
    chosen = frame["beta"].eq(8) & (frame["seed"] % 2 == 0)  # best where it is chosen, worst where it is judged
    frame["higgins_5"] = 0.5 + 0.1 * chosen - 0.2 * (frame["beta"].eq(8) & ~chosen)
    form = Chosen(setting(part="sweep32"), "higgins_5", "higgins_5", base=1.0)
    records = Records(frame)
    assert form.estimate(once(records, form.units(records))).effect[0] == pytest.approx(-0.2)


def test_a_bound_that_chooses_one_is_not_counted():
    assert by_id(sweep(20))["2.10"]["reason"] == "night: not counted: elbo chooses beta = 1.0"
    wrong = sweep(20)
    wrong["elbo"] = wrong["beta"].eq(32).astype(float)
    row = by_id(wrong)["2.10"]
    assert row["verdict"] == "supported"
    assert row["effect"] == pytest.approx(0.35, abs=0.1)


def test_the_fall_is_measured_at_the_last_setting_that_keeps_its_nats():
    records = Records(sweep(10).assign(part="sweep"))
    effects = {}
    for held in (0.5, 1.0, 2.7):
        form = BestOf(EVERY, "higgins_5", held=held)
        effects[held] = form.estimate(once(records, form.units(records))).effect[0]
    means = records.frame.groupby("beta")["higgins_5"].mean()
    for held, last in ((0.5, 32), (1.0, 16), (2.7, 8)):
        between = means[(means.index > 1) & (means.index < last)]
        assert effects[held] == pytest.approx(between.max() - means[last])
    form = BestOf(EVERY, "higgins_5", held=7.0)
    with pytest.raises(NotTestable, match="lies none"):
        form.estimate(once(records, form.units(records)))


def test_pieces_stay_apart():
    frame = sweep(10).query("beta <= 2").assign(part="sweep")
    frame["piece"] = np.where(frame["seed"] < 5, "first", "second")
    frame["score"] = np.where(frame["piece"] == "first", 10.0, 0.0) + 0.1 * frame["beta"] + 0.001 * frame["seed"]
    records, form = Records(frame), Above(setting(beta=2), setting(beta=1), "score")
    assert form.least_p(once(records, form.units(records))) == pytest.approx(1 / 252**2)
    alone = frame[(frame["piece"] == "first") | (frame["beta"] == 1)]
    assert "one of the two settings alone" in one(form, alone)["reason"]
    incomplete = sweep(10).query("beta != 4 or seed > 2")
    assert one(BestOf(setting(part="sweep32"), "higgins_5"), incomplete)["n"] == 7


def test_what_cannot_be_tested_says_why():
    frame = sweep(10)
    reason = "no model has beta = 3"
    assert reason in one(Above(setting(beta=3), setting(beta=1), "higgins_5"), frame)["reason"]
    assert "'nothing'" in one(Positive(setting(beta=1), "nothing - mig"), frame)["reason"]
    assert "sign-flips need ten" in one(Positive(setting(beta=1), "mig"), sweep(9))["reason"]
    assert "the least p of 3 models a setting is 0.5" in by_id(sweep(3))["2.1"]["reason"]
    frame.loc[frame["seed"] == 3, "mig"] = np.nan
    assert "1 of 10 models have no 'mig'" in one(Positive(setting(beta=1), "mig"), frame)["reason"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="cpu"), "missing: cpu"),
        (lambda frame: frame.assign(metric_version=[1, 2] * (len(frame) // 2)), "metric_version"),
        (lambda frame: frame.assign(record_version=[1, 2] * (len(frame) // 2)), "record_version"),
        (lambda frame: pd.concat([frame, frame.iloc[:2]]), "recorded twice"),
        (lambda frame: frame.assign(images=1_000 + frame["seed"] % 2), "claim 2.1 .* images"),
    ],
)
def test_records_that_do_not_fit_together_are_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        evaluate(change(sweep(10)), "night")
    assert "\n" not in str(error.value)


def test_the_interval_of_a_chosen_best_covers_what_it_should_and_is_no_wider_than_one_without_a_choice():
    rng, count, form = np.random.default_rng(0), 60, BestOf(EVERY, "score")
    covered, widths = 0, []
    for _ in range(count):
        records = Records(pilot(rng, 10).query("beta in (1, 8, 16)"))
        models = once(records, form.units(records))
        (low, high), best = form.interval(models), form.estimate(models)
        covered += low <= 0.88 - 0.65 <= high
        widths.append((high - low) / (2 * stats.t.isf(0.025, best.df[0]) * best.se[0]))
    assert covered >= stats.binom.ppf(1e-6, count, 0.95)
    assert np.mean(widths) == pytest.approx(1, abs=0.2)  # β = 16 is best beyond doubt


def everything(rng) -> pd.DataFrame:
    """Records of every part that the package's docstring names, with ten models a setting or twenty."""

    def part(name: str, models: int, columns: str, **settings) -> pd.DataFrame:
        scores = {column: rng.normal(0.5, 0.1, models) for column in columns.split()}
        return pd.DataFrame({"part": name, "seed": np.arange(models), **settings, **scores})

    flat = "higgins_1 higgins_5 higgins_64 mig mig_rotated weak_higgins_5 pca_higgins_5 elbo"
    groups = " ".join(
        f"{group}_{score}_{kind}"
        for group in ("top", "second")
        for score in ("higgins_5", "mig")
        for kind in ("draws", "rotated")
    )
    nats = {0.15: 8.0, 1: 6.0, 4: 5.0, 16: 3.0, 32: 1.0}
    frames = [part("gradients", 10, "score_function_variance pathwise_variance")]
    frames += [part("samples", 10, "elbo", batch_size=100, samples=count) for count in (1, 10)]
    frames += [part("overfitting", 10, "train_elbo test_elbo", train_size=2_000, latent_dim=m) for m in (10, 50)]
    frames += [part("latents", 10, "live", latent_dim=m) for m in (20, 50)]
    frames += [part("codes", 10, flat, beta=1), part("ica64", 10, flat)]
    frames += [part("dropping", 10, "worth_tau"), part("spectra", 10, "error_slope")]
    for beta, held in nats.items():
        frames += [part(name, 20, flat, beta=beta, nats=held) for name in ("faces", "paper64")]
        frames += [part("sweep32", 20, flat, beta=beta, nats=held, latent_dim=10)]
        frames += [part("sizes", 10, flat, beta=beta * m, latent_dim=m) for m in (4, 10, 32)]
        own = {"beta": beta, "network": "one group", "width": 96, "nats": held}
        frames += [part("hierarchy", 20, "elbo higgins_5_draws", **own)]
        own = {"beta": beta, "network": "hierarchy", "width": 32, "nats": held, "top_nats": 2.0}
        own |= {"top_live": 2, "second_live": 2}
        for schedule in ("none", "balance", "top_first"):
            frames += [part("hierarchy", 10, f"elbo all_linear_r2 {groups}", schedule=schedule, **own)]
    devices = [setting(part="devices", without="nothing"), *(claim.test.b for claim in CATALOGUE if claim.group)]
    frames += [part("devices", 8, "elbo", without=dict(device)["without"]) for device in dict.fromkeys(devices)]
    frame = pd.concat(frames, ignore_index=True).assign(piece=0, cpu="any", record_version=1, metric_version=1)
    frame.loc[frame["part"].eq("sweep32") & frame["beta"].eq(4), "elbo"] += 1
    return frame


def test_every_claim_can_be_tested_from_the_columns_that_are_named():
    rows = evaluate(everything(np.random.default_rng(0)), "night")
    assert {row["id"]: row["reason"] for row in rows if row["verdict"] == "not tested"} == {}
    assert [row["id"] for row in rows] == [claim.id for claim in CATALOGUE]
    for row in rows:
        assert np.isfinite([row["effect"], row["p"], row["p_adjusted"], *row["interval"]]).all()
        assert row["p"] <= row["p_adjusted"] <= 1
        assert row["interval"][0] <= row["interval"][1]
    verdicts = {row["id"]: row["verdict"] for row in rows}
    assert verdicts["1.1"] == "contradicted"  # equal variances
    assert verdicts["2.13"] == verdicts["3.2"] == verdicts["1.3"] == "supported"  # .5; two of ever fewer nats; a margin
    assert verdicts["2.3"] == verdicts["3.1"] == verdicts["3.10"] == "undecided"  # noise alone

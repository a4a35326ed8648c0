"""Scores of rotations and of known factors; latents that carry nothing; constant latents under every metric."""

from functools import partial

import numpy as np
import pytest
from factor_grid import full_grid

from vaestudy.errors import InputError
from vaestudy.metrics import (
    METRICS,
    correlation,
    dci,
    explicitness,
    factor_codes,
    factor_vae_score,
    higgins_score,
    irs,
    knn_r2,
    known_factors_score,
    live,
    mig,
    modularity,
    noise_codes,
    rotated,
    rotation_score,
    sap,
    scores,
    total_correlation,
    varies,
    whitened,
)

FACTORS = full_grid((3, 5, 8, 8))
TRUTH = factor_codes(FACTORS)
HIGGINS = partial(higgins_score, pairs=8, train=1_000, test=1_000)

# --- rotations ------------------------------------------------------------------------------------------------------


def test_the_rotation_score_is_below_an_aligned_code_and_equal_to_a_rotated_one():
    straight = mig(TRUTH, FACTORS, seed=0)
    reference = rotation_score(TRUTH, FACTORS, seed=0, rotations=30, metric=mig)
    assert reference < straight - 0.5
    alignments = [
        mig(turned, FACTORS, seed=0) - rotation_score(turned, FACTORS, seed=0, rotations=30, metric=mig)
        for turned in (rotated(TRUTH, seed=s) for s in range(8))
    ]
    assert np.mean(alignments) == pytest.approx(0, abs=4 * np.std(alignments) / np.sqrt(8))


def test_the_rotation_score_is_the_mean_of_single_ones_and_set_by_its_seed():
    once = [rotation_score(TRUTH, FACTORS, seed=s, rotations=3, metric=HIGGINS) for s in (0, 0, 1)]
    assert once[0] == once[1] != once[2]
    seeds = [int(s) for s in np.random.SeedSequence(0).generate_state(3)]
    white = whitened(TRUTH, FACTORS)
    assert once[0] == np.mean([HIGGINS(rotated(white, seed=s), FACTORS, seed=0) for s in seeds])


def test_whitening_forgets_scale_mixture_copies_and_constants():
    z = noise_codes(2_000, 3, seed=0).astype(float)
    copied = np.hstack([z @ np.diag([1, 20, 1e-3]) + 5, z[:, :1], np.full((2_000, 1), 0.1)])
    white = whitened(copied, FACTORS[np.arange(2_000) % len(FACTORS)])
    assert white.shape == (2_000, 3)
    np.testing.assert_allclose(np.cov(white, rowvar=False, ddof=0), np.eye(3), atol=1e-8)
    reference = rotation_score(np.ones_like(TRUTH), FACTORS, seed=0, rotations=2, metric=HIGGINS)
    assert reference == pytest.approx(1 / 4, abs=0.05)
    with pytest.raises(InputError, match="rotations"):
        rotation_score(TRUTH, FACTORS, seed=0, rotations=0)


# --- known factors --------------------------------------------------------------------------------------------------


def test_the_score_of_all_factors_is_the_ceiling_and_of_two_the_published_guess(grid, truth):
    assert known_factors_score(FACTORS, range(4), seed=0, metric=mig) == mig(TRUTH, FACTORS, seed=0)
    paper = partial(higgins_score, classes=(1, 2, 3, 4))
    both = known_factors_score(grid, [3, 4], seed=0, metric=paper)
    assert both == higgins_score(truth[:, 3:], grid, seed=0, classes=(1, 2, 3, 4))
    assert both == pytest.approx(0.75, abs=0.04)  # x, y, and one guess for scale and orientation
    assert known_factors_score(grid, [3, 4], seed=0, classes=(1, 2, 3, 4)) == both


@pytest.mark.parametrize("known", [[], [4], [0, -1]])
def test_factors_that_are_not_there_are_refused(known):
    with pytest.raises(InputError, match="known must name"):
        known_factors_score(FACTORS, known, seed=0)


# --- latents that carry nothing -------------------------------------------------------------------------------------


def test_live_latents_have_a_twentieth_of_a_nat():
    assert live(np.array([3, 0.05, 0.049, 0])).tolist() == [True, True, False, False]
    assert live(np.array([3, 0.05]), threshold=1.0).tolist() == [True, False]
    with pytest.raises(InputError, match="finite"):
        live(np.array([np.nan, 1]))


DEAD = {
    "exact": np.zeros(3),
    "inexact in binary": np.full(3, 0.1),
    "large": np.full(3, 3_000.3),
    "blurred by rounding": None,
}
IGNORE = {
    "higgins": HIGGINS,
    "factor_vae": partial(factor_vae_score, train=1_000, test=500),
    "mig": mig,
    "sap": partial(sap, train=600, test=300),
    "explicitness": partial(explicitness, train=600, test=300),
    "irs": irs,
    "total_correlation": total_correlation,
    "mig_sup": METRICS["mig_sup"].function,
    "knn_r2": lambda *table, seed: knn_r2(*table, seed=seed, train=600, test=300).mean(),
}


def padded(codes, values, dtype):
    """The codes with a constant latent before and two behind, which may flicker by the last digits."""
    if values is None:
        values = 0.3 * (1 + np.finfo(dtype).eps * np.arange(3))
    column = values[np.arange(len(codes)) % len(values)][:, None]
    return np.hstack([column, codes, column, -column]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", DEAD)
@pytest.mark.parametrize("name", IGNORE)
def test_constant_latents_change_no_score(name, kind, dtype):
    codes = (rotated(TRUTH, seed=3) + 0.3 * noise_codes(*TRUTH.shape, seed=0)).astype(dtype)
    plain = IGNORE[name](codes, FACTORS, seed=0)
    assert IGNORE[name](padded(codes, DEAD[kind], dtype), FACTORS, seed=0) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("method", ["lasso", "forest"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_constant_latents_count_where_the_definition_counts_latents(dtype, method):
    codes = (rotated(TRUTH, seed=3) + 0.3 * noise_codes(*TRUTH.shape, seed=0)).astype(dtype)
    more = padded(codes, DEAD["inexact in binary"], dtype)
    plain, with_dead = (modularity(c, FACTORS, seed=0) for c in (codes, more))
    assert with_dead == pytest.approx(plain * 4 / 7)
    plain, with_dead = (dci(c, FACTORS, seed=0, method=method, train=600, test=300) for c in (codes, more))
    assert with_dead[::2] == pytest.approx(plain[::2], abs=1e-6)
    assert 1 - with_dead.completeness == pytest.approx((1 - plain.completeness) * np.log(4) / np.log(7), abs=1e-6)
    assert with_dead.completeness > plain.completeness
    matrix = correlation(more)
    np.testing.assert_allclose(matrix[1:5, 1:5], correlation(codes), atol=1e-6)
    np.testing.assert_array_equal(matrix[[0, 5, 6]], np.eye(7)[[0, 5, 6]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_copies_of_latents_change_what_they_must(dtype):
    codes = (TRUTH + 0.3 * noise_codes(*TRUTH.shape, seed=0)).astype(dtype)
    twice = np.hstack([codes, codes])
    assert mig(twice, FACTORS, seed=0) == sap(twice, FACTORS, seed=0, train=600, test=300) == 0
    assert total_correlation(twice, FACTORS, seed=0) == np.inf
    exact = codes.astype(float)
    assert total_correlation(np.hstack([exact, exact[:, :1] + exact[:, 1:2]]), FACTORS, seed=0) == np.inf
    for name in ("higgins", "factor_vae", "explicitness", "irs", "mig_sup", "knn_r2"):
        plain, more = (IGNORE[name](c, FACTORS, seed=0) for c in (codes, twice))
        assert more == pytest.approx(plain, abs=0.02 if name in ("higgins", "factor_vae") else 0.002)
    assert modularity(twice, FACTORS, seed=0) == pytest.approx(modularity(codes, FACTORS, seed=0))


def test_a_latent_varies_by_more_than_a_millionth_of_its_size():
    z = noise_codes(1_000, 1, seed=0).astype(float)
    columns = [0 * z, 1e-8 * z, 1e-5 * z, 1e-5 * z + 1_000, 1e-2 * z + 1_000]
    assert varies(np.hstack(columns)).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize("name", ["mig", "mig_sup", "modularity", "irs", "total_correlation", "infomec"])
def test_only_the_rows_drawn_are_looked_at(name):
    """A large table is not searched for what a score of some of its rows cannot see."""
    drawn = np.random.default_rng(0).choice(len(FACTORS), 300, replace=False)
    holed = np.full_like(TRUTH, np.nan)
    holed[drawn] = TRUTH[drawn]
    metric = partial(METRICS[name].function, seed=0, points=300)
    assert metric(holed, FACTORS) == metric(TRUTH, FACTORS)


@pytest.mark.parametrize("name", ["sap", "explicitness", "dci", "dci_es"])
def test_only_the_rows_of_the_split_are_looked_at(name):
    drawn = np.random.default_rng(0).choice(len(FACTORS), 400, replace=False)
    holed = np.full_like(TRUTH, np.nan)
    holed[drawn] = TRUTH[drawn]
    metric = partial(METRICS[name].function, seed=0, train=300, test=100)
    assert metric(holed, FACTORS) == metric(TRUTH, FACTORS)


# --- the card -------------------------------------------------------------------------------------------------------


def test_expensive_metrics_are_scored_when_asked_for_by_name():
    cheap = scores(TRUTH, FACTORS, seed=0, dci_method="lasso")
    assert not [name for name in cheap if name.startswith(("infomec", "dci_es"))]
    asked = scores(TRUTH, FACTORS, seed=0, only=["infomec", "dci_es", "mig"], dci_es_depths=[1, 2, 8])
    parts = [f"dci_es_{p}" for p in ("disentanglement", "completeness", "informativeness", "explicitness", "size")]
    assert list(asked) == ["mig", *parts, "infomec_infom", "infomec_infoc", "infomec_infoe"]
    assert asked["mig"] == cheap["mig"]
    assert min(asked.values()) > 0.85


def test_settings_reach_the_metric_that_they_name():
    assert scores(TRUTH, FACTORS, seed=0, only=["sap"], sap_method="linear_svc")["sap"] < 0.9
    few = scores(TRUTH, FACTORS, seed=0, only=["mig", "irs"], points=300)
    assert few == {"mig": mig(TRUTH, FACTORS, seed=0, points=300), "irs": irs(TRUTH, FACTORS, seed=0, points=300)}
    with pytest.raises(InputError, match="no metric has a setting pears"):
        scores(TRUTH, FACTORS, seed=0, pears=3)
    with pytest.raises(InputError, match="no metric is called migg"):
        scores(TRUTH, FACTORS, seed=0, only=["migg"])


def test_a_metric_of_ones_own_takes_one_entry(monkeypatch):
    def width(codes, factors, *, seed, unit=1):
        return float(codes.shape[1] * unit)

    monkeypatch.setitem(METRICS, "width", type(METRICS["mig"])(width))
    assert scores(TRUTH, FACTORS, seed=0, only=["width"], width_unit=2) == {"width": 8.0}

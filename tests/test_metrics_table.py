"""What holds for every metric: seeds, bad tables, constant latents, copies, and which rows are looked at."""

from functools import partial

import numpy as np
import pytest
import torch
from factor_grid import full_grid

from vaestudy import metrics as m
from vaestudy.errors import InputError

FACTORS = full_grid((3, 5, 8, 8))
TRUTH = m.factor_codes(FACTORS)
DTYPES = [np.float16, np.float32, np.float64]
SIZES = {"higgins": {"pairs": 8, "train": 1_000, "test": 1_000}, "factor_vae": {"train": 1_000, "test": 500}}
SIZES |= {name: {"train": 600, "test": 300} for name in ("sap", "explicitness", "dci", "dci_es")}
EVERY = {name: partial(metric, **SIZES.get(name, {})) for name, metric in m.METRICS.items()}
EVERY["dci_es"] = partial(EVERY["dci_es"], depths=[1, 3])
EVERY["knn_r2"] = lambda *table, seed: m.knn_r2(*table, seed=seed, train=600, test=300).mean()

# --- seeds and bad tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in EVERY if name != "infomec"])
def test_a_seed_decides_and_no_global_generator_is_touched(name):
    codes = m.rotated(TRUTH, seed=0) + m.noise_codes(*TRUTH.shape, seed=0)
    metric = partial(EVERY[name], **{} if name in SIZES or name == "knn_r2" else {"points": 300})
    numbers, state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (metric(codes, FACTORS, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert (torch.get_rng_state() == state).all()


@pytest.mark.parametrize("name", EVERY)
def test_codes_that_are_not_finite_are_refused(name):
    for bad in (np.nan, np.inf, -np.inf):
        broken = TRUTH.copy()
        broken[:, 1] = bad
        with pytest.raises(InputError, match=r"NaN or inf|finite"):
            EVERY[name](broken, FACTORS, seed=0)


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (np.zeros(5), np.zeros((5, 2), int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros(5, int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros((4, 2), int), "metrics need codes"),
        (np.zeros((0, 2)), np.zeros((0, 2), int), "metrics need codes"),
        (np.zeros((5, 2)), np.zeros((5, 2)), "factors must be integers"),
        (np.array([[np.nan], [0.0]]), np.array([[0], [1]]), "NaN or inf in 1 of 2 rows"),
        (TRUTH, FACTORS * [1, 0, 1, 1], "factor column 1 has one value only"),
    ],
)
def test_tables_that_do_not_fit_are_refused(codes, factors, message):
    with pytest.raises(InputError, match=message):
        m.Table(codes, factors)


def test_labels_may_be_sparse_negative_and_of_any_integer_type():
    """Values are names: renumbering them changes nothing."""
    renamed = FACTORS.copy()
    renamed[:, 0] = np.array([-5, 7, 1_000_000])[FACTORS[:, 0]]
    for names in (renamed, FACTORS.astype(np.uint8)):
        assert (m.Table(TRUTH, names).factors == FACTORS).all()


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in m.METRICS if name not in ("higgins", "factor_vae")])
def test_only_the_rows_drawn_are_looked_at(name):
    """A large table is not searched for what a score of some of its rows cannot see."""
    drawn = np.random.default_rng(0).choice(len(FACTORS), 400, replace=False)
    holed = np.full_like(TRUTH, np.nan)
    holed[drawn] = TRUTH[drawn]
    sizes = {"train": 300, "test": 100} if name in SIZES else {"points": 400}
    metric = partial(m.METRICS[name], seed=0, **sizes)
    assert metric(holed, FACTORS) == metric(TRUTH, FACTORS)


def test_a_split_is_of_different_rows_and_a_smaller_table_is_split_two_to_one():
    codes, factors = np.arange(90.0)[:, None], np.arange(180).reshape(90, 2) % 5
    for asked, got in (((50, 20), (50, 20)), ((10_000, 5_000), (60, 30)), ((20, 5_000), (20, 70))):
        learnt, unseen, *values = m.Table.split(codes, factors, 0, *asked)
        assert (len(learnt), len(unseen)) == tuple(map(len, values)) == got
        assert len(np.union1d(learnt, unseen)) == sum(got)


# --- constant latents and copies ------------------------------------------------------------------------------------

DEAD = {
    "exact": np.zeros(3),
    "inexact in binary": np.full(3, 0.1),
    "large": np.full(3, 3_000.3),
    "blurred by rounding": None,
}


def noisy(dtype):
    return (m.rotated(TRUTH, seed=3) + 0.3 * m.noise_codes(*TRUTH.shape, seed=0)).astype(dtype)


def padded(codes, values, dtype):
    """The codes with a constant latent before and two behind, which may flicker by the last digits."""
    if values is None:
        values = 0.3 * (1 + np.finfo(dtype).eps * np.arange(3))
    column = values[np.arange(len(codes)) % len(values)][:, None]
    return np.hstack([column, codes, column, -column]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(set(EVERY) - {"modularity", "dci", "dci_es", "infomec"}))
def test_constant_latents_change_no_score(name, dtype):
    codes = noisy(dtype)
    plain = EVERY[name](codes, FACTORS, seed=0)
    for values in DEAD.values():
        assert EVERY[name](padded(codes, values, dtype), FACTORS, seed=0) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("method", ["lasso", "forest"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_constant_latents_count_where_the_definition_counts_latents(dtype, method):
    codes = noisy(dtype)
    more = padded(codes, DEAD["inexact in binary"], dtype)
    plain, with_dead = (m.modularity(c, FACTORS, seed=0) for c in (codes, more))
    assert with_dead == pytest.approx(plain * 4 / 7)
    plain, with_dead = (m.dci(c, FACTORS, seed=0, method=method, train=600, test=300) for c in (codes, more))
    assert with_dead[::2] == pytest.approx(plain[::2], abs=1e-6)
    assert 1 - with_dead.completeness == pytest.approx((1 - plain.completeness) * np.log(4) / np.log(7), abs=1e-6)
    matrix = m.correlation(more)
    np.testing.assert_allclose(matrix[1:5, 1:5], m.correlation(codes), atol=1e-6)
    np.testing.assert_array_equal(matrix[[0, 5, 6]], np.eye(7)[[0, 5, 6]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_of_latents_change_what_they_must(dtype):
    codes = (TRUTH + 0.3 * m.noise_codes(*TRUTH.shape, seed=0)).astype(dtype)
    twice = np.hstack([codes, codes])
    assert m.mig(twice, FACTORS, seed=0) == m.sap(twice, FACTORS, seed=0, train=600, test=300) == 0
    assert m.total_correlation(twice, FACTORS, seed=0) == np.inf
    exact = codes.astype(float)
    assert m.total_correlation(np.hstack([exact, exact[:, :1] + exact[:, 1:2]]), FACTORS, seed=0) == np.inf
    for name in ("higgins", "factor_vae", "explicitness", "irs", "mig_sup", "modularity", "knn_r2"):
        plain, more = (EVERY[name](c, FACTORS, seed=0) for c in (codes, twice))
        assert more == pytest.approx(plain, abs=0.02 if name in ("higgins", "factor_vae") else 0.002)


def test_a_latent_varies_by_more_than_a_millionth_of_its_size_and_lives_from_a_twentieth_of_a_nat():
    z = m.noise_codes(1_000, 1, seed=0).astype(float)
    columns = [0 * z, 1e-8 * z, 1e-5 * z, 1e-5 * z + 1_000, 1e-2 * z + 1_000]
    assert m.varies(np.hstack(columns)).tolist() == [False, False, True, False, True]
    assert m.live(np.array([3, 0.05, 0.049, 0])).tolist() == [True, True, False, False]
    assert m.live(np.array([3, 0.05]), threshold=1.0).tolist() == [True, False]
    with pytest.raises(InputError, match="finite"):
        m.live(np.array([np.nan, 1]))


def test_components_have_the_sign_of_the_latent_that_weighs_most_in_them():
    for seed in range(8):
        z = m.noise_codes(500, 3, seed=seed) * np.float32([3, 2, 1])
        assert ((m.whitened(z) * z).sum(axis=0) > 0).all()


def test_whitening_forgets_scale_mixture_copies_and_constants():
    z = m.noise_codes(2_000, 3, seed=0).astype(float)
    copied = np.hstack([z @ np.diag([1, 20, 1e-3]) + 5, z[:, :1], np.full((2_000, 1), 0.1)])
    white = m.whitened(copied)
    assert white.shape == (2_000, 3)
    np.testing.assert_allclose(np.cov(white, rowvar=False, ddof=0), np.eye(3), atol=1e-8)

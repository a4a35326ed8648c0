"""MIG, modularity, IRS and the dependence of latents: closed forms, matrices with known scores, plain loops."""

import numpy as np
import pytest
from factor_grid import DSPRITES, full_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from vaestudy.errors import InputError
from vaestudy.metrics import (
    entropy,
    factor_codes,
    irs,
    mig,
    modularity,
    mutual_information,
    noise_codes,
    rotated,
    total_correlation,
    wasserstein_dependence,
)
from vaestudy.metrics.information import binned, mean_gap, modularity_from_information
from vaestudy.metrics.moments import gaussian_total_correlation, wasserstein_from_covariance

ALL = [mig, modularity, irs, total_correlation]


@pytest.fixture(scope="module")
def noise(grid):
    return noise_codes(len(grid), 5, seed=0)


# --- mutual information gap -----------------------------------------------------------------------------------------


def test_twenty_bins_cap_the_gap_of_true_factors(grid, truth):
    assert mig(truth, grid, seed=0) == pytest.approx(0.896, abs=0.01)
    assert mig(truth, grid, seed=0, bins=40) == pytest.approx(0.987, abs=0.01)


def test_the_cap_is_the_entropy_of_the_merged_values(grid, truth):
    """On every row of the grid factors share no information, so the gap of each is H(merged values) / H(values)."""
    caps = []
    for size in DSPRITES:
        share = np.histogram(np.arange(size), bins=min(20, size))[0] / size
        caps.append(-(share * np.log(share)).sum() / np.log(size))
    assert caps[2] == pytest.approx(np.log(20) / np.log(40))
    assert mig(truth, grid, seed=0, points=None) == pytest.approx(np.mean(caps), abs=1e-6)


def test_codes_taken_as_they_are_have_no_cap(grid, truth):
    assert mig(truth, grid, seed=0, bins=None) > 0.98
    small = full_grid((3, 4, 25))
    assert mig(factor_codes(small), small, seed=0, bins=None) == pytest.approx(1)


def test_gap_of_duplicates_noise_constants_and_circles(grid, truth, noise):
    assert mig(np.repeat(truth, 2, axis=1), grid, seed=0) == pytest.approx(0, abs=1e-12)
    assert 0 <= mig(noise, grid, seed=0) < 0.002
    assert mig(np.ones_like(truth), grid, seed=0) == 0
    assert mig(rotated(truth, seed=2), grid, seed=0) < 0.1
    angle = grid[:, 2] * 2 * np.pi / 40
    circle = np.stack([np.cos(angle), np.cos(angle - np.pi / 2)], axis=1)
    assert mig(circle, grid[:, [2, 0]], seed=0, points=None) == pytest.approx(0, abs=0.01)


def test_information_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    left, right = rng.integers(7, size=(500, 3)), rng.integers(5, size=(500, 2))
    left[:, 0] = (right[:, 1] + rng.integers(2, size=500)) % 7
    expected = [[mutual_info_score(z, v) for v in right.T] for z in left.T]
    np.testing.assert_allclose(mutual_information(left, right), expected, atol=1e-12)
    np.testing.assert_allclose(entropy(right), [mutual_info_score(v, v) for v in right.T], atol=1e-12)


def test_gap_of_a_known_matrix():
    shares = np.array([[0.5, 0.2], [0.2, 0.8], [0.3, 0.0]])
    assert mean_gap(shares) == pytest.approx((0.2 + 0.6) / 2)


def test_bins_are_of_equal_width_over_the_range():
    column = np.random.default_rng(0).normal(size=(400, 1))
    expected = np.digitize(column[:, 0], np.histogram(column[:, 0], 20)[1][:-1]) - 1  # disentanglement_lib's way
    assert (binned(column, 20)[:, 0] == expected).all()
    assert (np.bincount(binned(column, 20)[:, 0]) == np.histogram(column[:, 0], 20)[0]).all()


# --- modularity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("information", "expected"),
    [
        (np.eye(5), 1),
        (np.array([[1.0, 0], [0, 1], [0, 0]]), 2 / 3),
        (np.eye(10) + np.roll(np.eye(10), 1, axis=1), 1 - 1 / 9),
        (np.zeros((3, 4)), 0),
        (np.ones((3, 4)), 0),
    ],
)
def test_modularity_of_known_matrices(information, expected):
    assert modularity_from_information(information) == pytest.approx(expected)


def test_modularity_of_truth_noise_and_both(grid, truth, noise):
    assert modularity(truth, grid, seed=0) == pytest.approx(1, abs=0.001)
    assert modularity(noise, grid, seed=0) == pytest.approx(0.65, abs=0.05)
    assert modularity(np.concatenate([truth, noise], axis=1), grid, seed=0) == pytest.approx(0.83, abs=0.03)
    assert modularity(np.zeros_like(truth), grid, seed=0) == 0


# --- interventional robustness --------------------------------------------------------------------------------------


def test_irs_of_truth_noise_and_constants(grid, truth, noise):
    assert irs(truth, grid, seed=0) == pytest.approx(1)
    assert irs(truth, grid, seed=0, factor_bins=20) == pytest.approx(0.986, abs=0.005)
    assert irs(noise, grid, seed=0, factor_bins=20) == pytest.approx(0.36, abs=0.06)
    assert irs(np.full_like(truth, 3), grid, seed=0) == 0
    padded = np.pad(truth, ((0, 0), (1, 1)))
    assert irs(padded, grid, seed=0, factor_bins=20) == irs(truth, grid, seed=0, factor_bins=20)


def test_irs_is_that_of_a_plain_loop():
    factors = full_grid((3, 4, 6))
    z = np.tanh(factor_codes(factors).astype(float) @ np.random.default_rng(0).normal(size=(3, 4)))
    scores, largest = np.zeros((4, 3)), np.abs(z - z.mean(axis=0)).max(axis=0)
    for j in range(4):
        for k, size in enumerate((3, 4, 6)):
            spread = []
            for value in range(size):
                group = z[factors[:, k] == value, j]
                spread.append(np.quantile(np.abs(group - group.mean()), 0.9))
            scores[j, k] = 1 - np.mean(spread) / largest[j]
    expected = (scores.max(axis=1) * largest).sum() / largest.sum()
    assert irs(z, factors, seed=0, quantile=0.9) == pytest.approx(expected, abs=1e-12)


# --- dependence of the latents --------------------------------------------------------------------------------------


def test_dependence_of_a_known_covariance():
    sigma = np.array([[1, 0.9], [0.9, 1]])
    assert gaussian_total_correlation(sigma) == pytest.approx(0.830366, abs=1e-6)
    assert wasserstein_from_covariance(sigma).distance == pytest.approx(0.610735, abs=1e-6)
    assert wasserstein_from_covariance(sigma).share == pytest.approx(0.305367, abs=1e-6)


def test_dependence_of_independent_constant_and_duplicate_latents():
    diagonal = np.diag([4.0, 1e-9, 0.0, 7.0])
    assert gaussian_total_correlation(diagonal) == pytest.approx(0, abs=1e-12)
    assert wasserstein_from_covariance(diagonal).distance == pytest.approx(0, abs=1e-12)
    assert gaussian_total_correlation(np.ones((2, 2))) == np.inf
    assert wasserstein_from_covariance(np.ones((2, 2))).distance == pytest.approx(4 - 2 * np.sqrt(2))
    assert gaussian_total_correlation(np.zeros((3, 3))) == 0
    assert wasserstein_from_covariance(np.zeros((3, 3))) == (0, 0)


def test_total_correlation_of_gaussian_codes_is_that_of_their_covariance(grid):
    z = noise_codes(len(grid), 3, seed=0)
    z[:, 1] = 0.9 * z[:, 0] + np.sqrt(1 - 0.81) * z[:, 1]
    assert total_correlation(z, grid, seed=0, points=None) == pytest.approx(0.830366, abs=0.01)
    assert wasserstein_dependence(z, grid, seed=0, points=None).distance == pytest.approx(0.610735, abs=0.01)
    assert total_correlation(100 * z + 5, grid, seed=0) == pytest.approx(total_correlation(z, grid, seed=0), rel=1e-4)
    assert total_correlation(z[:, :1], grid, seed=0) == 0


# --- what holds for all ---------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_order_sign_and_scale_of_the_latents_change_nothing(data):
    factors = full_grid((3, 4, 10))
    codes = factor_codes(factors).astype(float) @ np.random.default_rng(0).normal(size=(3, 4))
    codes += noise_codes(len(factors), 4, seed=1)
    order = data.draw(st.permutations(range(4)))
    scale = 2.0 ** np.array(data.draw(st.lists(st.integers(-8, 8), min_size=4, max_size=4)))
    for metric in (mig, modularity, total_correlation):
        plain = metric(codes, factors, seed=0, points=100)
        assert metric(codes[:, order] * scale, factors, seed=0, points=100) == pytest.approx(plain, abs=1e-9)
    plain = irs(codes, factors, seed=0)
    assert irs(-codes[:, order] * 8, factors, seed=0) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("metric", ALL)
def test_a_seed_decides_which_rows_are_seen(metric, grid, truth):
    codes = rotated(truth, seed=0)
    values = [metric(codes, grid, seed=s, points=300) for s in (0, 0, 1, 2)]
    assert values[0] == values[1]
    assert len(set(values)) == 3


@pytest.mark.parametrize("metric", [*ALL, wasserstein_dependence])
def test_bad_tables_are_refused(metric):
    factors = full_grid((3, 4))
    codes = factor_codes(factors)
    for bad in (np.nan, np.inf):
        broken = codes.copy()
        broken[3, 1] = bad
        with pytest.raises(InputError, match="NaN or inf"):
            metric(broken, factors, seed=0)
    with pytest.raises(InputError, match="one value only"):
        metric(codes, factors * [1, 0], seed=0)
    with pytest.raises(InputError, match="points must be 2 or more"):
        metric(codes, factors, seed=0, points=1)


def test_settings_that_make_no_sense_are_refused():
    factors = full_grid((3, 4, 10))
    codes = factor_codes(factors)
    with pytest.raises(InputError, match="two latents"):
        mig(codes[:, :1], factors, seed=0)
    with pytest.raises(InputError, match="two factor columns"):
        modularity(codes, factors[:, :1], seed=0)
    with pytest.raises(InputError, match="bins"):
        mig(codes, factors, seed=0, bins=1)
    with pytest.raises(InputError, match="discrete codes"):
        mig(noise_codes(120, 2, seed=0), factors, seed=0, bins=None)
    with pytest.raises(InputError, match="quantile"):
        irs(codes, factors, seed=0, quantile=0.0)

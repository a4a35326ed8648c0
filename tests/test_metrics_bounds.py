"""Bounds from log weights against closed forms; active units; units of likelihood."""

import numpy as np
import pytest

from vaestudy.errors import InputError
from vaestudy.metrics import active_units, bits_per_dim, importance_weighted_ladder


def test_one_sample_is_the_elbo_and_all_samples_are_the_log_mean_weight():
    weights = np.random.default_rng(0).normal(size=(7, 60))
    ladder = importance_weighted_ladder(weights, [1, 60])
    np.testing.assert_allclose(ladder[0], weights.mean(axis=1))
    np.testing.assert_allclose(ladder[1], np.log(np.exp(weights).mean(axis=1)))


def test_blocks_are_disjoint_and_a_remainder_is_left_out():
    weights = np.random.default_rng(0).normal(size=(3, 11))
    expected = np.mean([np.log(np.exp(weights[:, i : i + 4]).mean(axis=1)) for i in (0, 4)], axis=0)
    np.testing.assert_allclose(importance_weighted_ladder(weights, [4])[0], expected)


def test_exact_posteriors_give_the_evidence_from_every_sample():
    """x|z ~ N(z, 1), z ~ N(0, 1): q = N(x/2, 1/2) makes log p(x, z) - log q(z|x) = log N(x; 0, 2) for any z."""

    def log_normal(value, mean, variance):
        return -0.5 * (np.log(2 * np.pi * variance) + (value - mean) ** 2 / variance)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 1))
    z = x / 2 + np.sqrt(0.5) * rng.normal(size=(6, 10))
    weights = log_normal(x, z, 1) + log_normal(z, 0, 1) - log_normal(z, x / 2, 0.5)
    for bound in importance_weighted_ladder(weights, [1, 3, 10]):
        np.testing.assert_allclose(bound, log_normal(x[:, 0], 0, 2), rtol=1e-12)


def test_extreme_weights_stay_finite_in_half_the_precision():
    weights = np.array([[-1e5, -1e5 - 1, -np.inf], [800, 0, -800]], dtype=np.float32)
    (bound,) = importance_weighted_ladder(weights, [3])
    np.testing.assert_allclose(bound, [-1e5 + np.log(1 + np.exp(-1)) - np.log(3), 800 - np.log(3)], rtol=1e-9)


def test_bad_weights_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="without NaN"):
            importance_weighted_ladder(np.array([[0.0, bad]]), [2])
    for sizes in ([], [0], [3]):
        with pytest.raises(InputError, match="block sizes must be 1 to 2"):
            importance_weighted_ladder(np.zeros((4, 2)), sizes)


def test_active_units_move_with_the_image():
    spread = np.array([1, 0.11, 0.09, 0, 3])
    means = np.random.default_rng(0).normal(size=(20_000, 5)) * spread + 7
    assert active_units(means).tolist() == [True, True, False, False, True]
    assert active_units(means, threshold=2.0).sum() == 1
    for wrong in (means[:1], means * np.nan):
        with pytest.raises(InputError, match="active units"):
            active_units(wrong)


def test_bits_per_dim():
    assert bits_per_dim(784 * np.log(2), 784) == pytest.approx(1)  # a fair coin for every pixel
    np.testing.assert_allclose(bits_per_dim(np.array([0.0, 2839.1309]), 4096), [0, 1], rtol=1e-7)
    with pytest.raises(InputError, match="dims"):
        bits_per_dim(1.0, 0)

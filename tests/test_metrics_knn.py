"""R² of nearest neighbours at its two ends, and under a rotation."""

import numpy as np
import pytest

from vaestudy import metrics
from vaestudy.data import Factors
from vaestudy.errors import InputError
from vaestudy.metrics import knn_r2

FACTORS = Factors(("a", "b", "c"), (4, 25, 30)).values(slice(None))


def test_perfect_codes_and_their_rotation_know_every_factor():
    codes = metrics.factor_codes(FACTORS).repeat(4, axis=0)
    factors = FACTORS.repeat(4, axis=0)
    known = knn_r2(codes, factors, seed=0, train=9_000, test=1_000)
    assert (known > 0.97).all()
    turned = knn_r2(metrics.rotated(codes, seed=1), factors, seed=0, train=9_000, test=1_000)
    assert turned == pytest.approx(known, abs=0.03)


def test_noise_knows_nothing_and_a_missing_factor_is_missed():
    noise = metrics.noise_codes(len(FACTORS), 3, seed=0)
    assert (knn_r2(noise, FACTORS, seed=0, train=2_000, test=1_000) < 0.05).all()
    codes = metrics.factor_codes(FACTORS.repeat(4, axis=0), without=0)
    known = knn_r2(codes, FACTORS.repeat(4, axis=0), seed=0, train=9_000, test=1_000)
    assert known[0] < 0.2
    assert (known[1:] > 0.97).all()


def test_too_few_rows_and_codes_that_are_not_finite():
    codes = metrics.factor_codes(FACTORS)
    with pytest.raises(InputError, match="100 rows or more"):
        knn_r2(codes[:99], FACTORS[:99], seed=0)
    with pytest.raises(InputError, match="finite"):
        knn_r2(np.full_like(codes, np.nan), FACTORS, seed=0, train=100, test=100)
